"""Normalizations written out compute what ONNX Runtime computes for the op itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

import deploykit
from deploykit.graph.ops import is_canonical
from deploykit.model import Stage
from deploykit.passes.pipeline import advance

SHAPE = (1, 6, 4, 5)


def save(path: Path, op: str, constants: dict[str, np.ndarray], **attributes: object) -> bytes:
    """A model of one node; what ONNX Runtime gives says which shape its output has."""

    def model(shape: tuple[int, ...] | None) -> onnx.ModelProto:
        graph = helper.make_graph(
            [helper.make_node(op, ["x", *constants], ["y"], **attributes)],
            "g",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, SHAPE)],
            [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, shape)],
            [numpy_helper.from_array(a, n) for n, a in constants.items()],
        )
        imports = [helper.make_opsetid("", 18)]
        return helper.make_model(graph, opset_imports=imports, ir_version=8)

    result = run(model(None).SerializeToString(), numbers(*SHAPE))
    onnx.save(model(result.shape), path)
    return path.read_bytes()


def run(model: bytes, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def check(path: Path, model: bytes, *, offset: float = 0.0) -> None:
    x = numbers(*SHAPE, seed=7) + np.float32(offset)
    fused = advance(deploykit.load(path), Stage.FUSED)
    assert all(is_canonical(n.domain, n.op_type) for n in fused.graph.graph)
    found, wanted = run(fused.serialized(), x), run(model, x)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-5)


@settings(max_examples=12, deadline=None)
@given(
    axis=st.sampled_from([-1, 1, 2, 3]),
    affine=st.sampled_from(["none", "scale", "both"]),
    offset=st.sampled_from([0.0, 30.0]),
)
def test_layer_normalization(
    tmp_path_factory: pytest.TempPathFactory, axis: int, affine: str, offset: float
) -> None:
    path = tmp_path_factory.mktemp("norm") / "m.onnx"
    shape = SHAPE[axis:]
    constants = {"scale": np.ones(shape, np.float32) if affine == "none" else numbers(*shape)}
    if affine == "both":
        constants["bias"] = numbers(*shape, seed=1)
    check(path, save(path, "LayerNormalization", constants, axis=axis), offset=offset)


def test_instance_normalization(tmp_path: Path) -> None:
    constants = {"scale": numbers(6), "bias": numbers(6, seed=1)}
    path = tmp_path / "m.onnx"
    check(path, save(path, "InstanceNormalization", constants))


@pytest.mark.parametrize("axes", [[1], [2, 3], [-1], [0, 1, 2, 3]])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_reduce_l2(tmp_path: Path, axes: list[int], keepdims: int) -> None:
    path = tmp_path / "m.onnx"
    check(path, save(path, "ReduceL2", {"axes": np.asarray(axes)}, keepdims=keepdims))


@pytest.mark.parametrize("order", [1, 2])
def test_lp_normalization(tmp_path: Path, order: int) -> None:
    path = tmp_path / "m.onnx"
    check(path, save(path, "LpNormalization", {}, axis=1, p=order))
