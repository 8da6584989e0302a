"""Files that once gave wrong or no float artefacts, each with the right value, on the runtimes.

What is expected is ONNX Runtime on the file as it came.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

import deploykit
from deploykit.errors import UnsupportedModelError
from deploykit.model import Precision, Stage
from deploykit.parity.metrics import max_error_over_range
from deploykit.passes.pipeline import advance
from deploykit.runners.registry import available_runners
from deploykit.sources.options import LoadOptions
from deploykit.target import ArtifactRequest, find_target
from deploykit_testing.reported_files import model_of

pytest.importorskip("ai_edge_litert")
pytest.importorskip("coremltools")
pytest.importorskip("ncnn")

ALL = ("tflite", "coreml", "ncnn", "onnx")
LIMIT = 2e-5

Array = np.ndarray[Any, np.dtype[Any]]
node = helper.make_node


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def expected(model: onnx.ModelProto, x: Array) -> dict[str, Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [v.name for v in session.get_outputs()]
    return dict(zip(names, session.run(None, {session.get_inputs()[0].name: x}), strict=True))


def check(
    model: onnx.ModelProto,
    folder: Path,
    x: Array,
    *,
    wanted: Mapping[str, Array] | None = None,
    refused: Mapping[str, str] | None = None,
    shape: tuple[int, ...] = (),
) -> None:
    """Every target's file gives what ONNX Runtime gives, or is refused with these words."""
    onnx.save(model, folder / "net.onnx")
    fused = advance(
        deploykit.load(folder / "net.onnx", options=LoadOptions(input_shape=shape)), Stage.FUSED
    )
    results = wanted if wanted is not None else expected(model, x)
    for name in ALL:
        target = find_target(name)
        if refused and name in refused:
            with pytest.raises(UnsupportedModelError, match=refused[name]):
                target.write(fused, ArtifactRequest(Precision.FP32))
            continue
        artifact = target.write(fused, ArtifactRequest(Precision.FP32))
        for path, data in artifact.files("net").items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        for runner in available_runners(target.runners):
            file = runner.file_to_run("net" + artifact.suffix, list(artifact.files("net")))
            if not file or runner.on_request or runner.options.get("arithmetic") == "default":
                continue
            module, _, backend = runner.backend.partition(":")
            opened = getattr(import_module(module), backend)(
                str(folder / file), {**runner.options, "threads": 1}
            )
            (spec,) = artifact.inputs
            found = opened.run({spec.runtime_name: spec.encode(x)})
            assert [s.name for s in artifact.outputs] == list(results)
            for output in artifact.outputs:
                actual = output.decode(found[output.runtime_name])
                error = max_error_over_range(actual, results[output.name])
                assert error <= LIMIT, (name, runner.name, output.name, error)


@pytest.mark.parametrize("dim", [-1, 0])
def test_impossible_dimensions_are_inferred_anew(tmp_path: Path, dim: int) -> None:
    nodes = [
        node("Conv", ["x", "w"], ["a"]),
        node("GlobalAveragePool", ["a"], ["p"]),
        node("HardSigmoid", ["p"], ["g"]),
        node("Mul", ["a", "g"], ["q"]),
        node("Relu", ["q"], ["y"]),
    ]
    constants = {"w": normal(4, 3, 3, 3)}
    right = model_of(nodes, {"x": [1, 3, 12, 12]}, {"y": [1, 4, 10, 10]}, constants)
    broken = model_of(nodes, {"x": [dim, 3, 12, 12]}, {"y": [dim, 4, 10, 10]}, constants)
    for name, dims in (("a", [dim, 4, 10, 10]), ("p", [dim, 4, 1, 1])):
        broken.graph.value_info.append(
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, dims)
        )
    x = normal(1, 3, 12, 12, seed=1)
    check(broken, tmp_path, x, wanted=expected(right, x), shape=(1, 3, 12, 12))


@settings(max_examples=6, deadline=None)
@given(
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    pads=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    group=st.sampled_from([1, 2]),
)
def test_one_dimensional_networks_are_carried(
    tmp_path_factory: pytest.TempPathFactory,
    stride: int,
    dilation: int,
    pads: tuple[int, int],
    group: int,
) -> None:
    nodes = [
        node(
            "Conv",
            ["x", "w"],
            ["a"],
            strides=[stride],
            dilations=[dilation],
            pads=list(pads),
            group=group,
        ),
        node("BatchNormalization", ["a", "s", "b", "m", "v"], ["n"]),
        node("Relu", ["n"], ["r"]),
        node("MaxPool", ["r"], ["p"], kernel_shape=[3], strides=[2], pads=[1, 0]),
        node("ConvTranspose", ["p", "t"], ["y"], strides=[2]),
    ]
    constants = {
        "w": normal(8, 4 // group, 3),
        "t": normal(8, 3, 2, seed=3),
        "s": normal(8, seed=4),
        "b": normal(8, seed=5),
        "m": normal(8, seed=6),
        "v": np.abs(normal(8, seed=7)) + 0.5,
    }
    length = (40 + sum(pads) - 2 * dilation - 1) // stride + 1
    pooled = (length + 1 - 3) // 2 + 1
    model = model_of(nodes, {"x": [1, 4, 40]}, {"y": [1, 3, 2 * pooled]}, constants)
    check(model, tmp_path_factory.mktemp("row"), normal(1, 4, 40, seed=1))


def test_a_pool_over_a_row_is_carried(tmp_path: Path) -> None:
    nodes = [node("MaxPool", ["x"], ["y"], kernel_shape=[2])]
    check(model_of(nodes, {"x": [1, 3, 32]}, {"y": [1, 3, 31]}, {}), tmp_path, normal(1, 3, 32))


def test_three_dimensional_convolutions_are_refused_in_words(tmp_path: Path) -> None:
    nodes = [node("Conv", ["x", "w"], ["y"])]
    shapes = {"x": [1, 2, 6, 8, 8]}, {"y": [1, 4, 4, 6, 6]}
    model = model_of(nodes, *shapes, {"w": normal(4, 2, 3, 3, 3)})
    words = {"tflite": "only 2-D", "coreml": "only 2-D", "ncnn": "2-D convolutions"}
    check(model, tmp_path, normal(1, 2, 6, 8, 8), refused=words)


def test_outputs_that_are_constant_or_come_twice(tmp_path: Path) -> None:
    nodes = [
        node("Conv", ["x", "w"], ["y0"]),
        node("Mul", ["k", "k"], ["y1"]),
        node("Relu", ["y0"], ["y2"]),
    ]
    constants = {"w": normal(8, 3, 3, 3), "k": normal(1, 4)}
    outputs = {"y0": [1, 8, 9, 11], "y1": [1, 4], "y2": [1, 8, 9, 11]}
    model = model_of(nodes, {"x": [1, 3, 11, 13]}, outputs, constants)
    x = normal(1, 3, 11, 13, seed=1)
    check(model, tmp_path, x)
    results = expected(model, x)
    twice = onnx.ModelProto()
    twice.CopyFrom(model)
    twice.graph.output.append(model.graph.output[2])
    check(twice, tmp_path, x, wanted=results | {"y2.1": results["y2"]})


def test_an_output_that_is_the_input(tmp_path: Path) -> None:
    nodes = [node("Conv", ["x", "w"], ["y"])]
    shapes = {"x": [1, 3, 6, 6]}, {"y": [1, 4, 4, 4], "x": [1, 3, 6, 6]}
    model = model_of(nodes, *shapes, {"w": normal(4, 3, 3, 3)})
    x = normal(1, 3, 6, 6, seed=1)
    alone = model_of(nodes, shapes[0], {"y": [1, 4, 4, 4]}, {"w": normal(4, 3, 3, 3)})
    check(model, tmp_path, x, wanted=expected(alone, x) | {"x.1": x})


def test_indices_as_an_output_are_refused(tmp_path: Path) -> None:
    nodes = [node("MaxPool", ["x"], ["y", "i"], kernel_shape=[2, 2])]
    model = model_of(
        nodes,
        {"x": [1, 2, 6, 6]},
        {"y": [1, 2, 5, 5], "i": [1, 2, 5, 5]},
        {},
        dtypes={"i": onnx.TensorProto.INT64},
    )
    words = {"tflite": "indices", "coreml": "indices", "ncnn": "indices"}
    check(model, tmp_path, normal(1, 2, 6, 6), refused=words)


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
def test_resize_that_keeps_the_aspect_ratio(tmp_path: Path, policy: str) -> None:
    nodes = [
        node(
            "Resize",
            ["x", "", "", "s"],
            ["y"],
            mode="linear",
            axes=[2, 3],
            keep_aspect_ratio_policy=policy,
        )
    ]
    size = [20, 24] if policy == "not_larger" else [25, 30]
    model = model_of(
        nodes,
        {"x": [1, 4, 9, 11]},
        {"y": [1, 4, *size]},
        {"s": np.array([20, 30])},
        opset=19,
        ir_version=9,
    )
    refused = dict.fromkeys(("tflite", "ncnn"), "sample")
    check(model, tmp_path, normal(1, 4, 9, 11), refused=refused)


def test_a_pad_with_minus_infinity_is_the_pools_own(tmp_path: Path) -> None:
    nodes = [
        node("Conv", ["x", "w"], ["a"]),
        node("Pad", ["a", "p", "ninf"], ["d"]),
        node("MaxPool", ["d"], ["y"], kernel_shape=[3, 3], strides=[2, 2]),
    ]
    constants = {
        "w": normal(8, 3, 3, 3),
        "p": np.array([0, 0, 0, 0, 0, 0, 1, 1]),
        "ninf": np.float32(-np.inf),
    }
    model = model_of(nodes, {"x": [1, 3, 12, 12]}, {"y": [1, 8, 5, 5]}, constants)
    check(model, tmp_path, normal(1, 3, 12, 12, seed=1))


def test_nodes_that_are_not_in_order(tmp_path: Path) -> None:
    nodes = [
        node("Add", ["a", "c"], ["y"]),
        node("Conv", ["x", "w"], ["a"]),
        node("Relu", ["a"], ["c"]),
    ]
    constants = {"w": normal(8, 3, 3, 3)}
    model = model_of(nodes, {"x": [1, 3, 12, 12]}, {"y": [1, 8, 10, 10]}, constants)
    check(model, tmp_path, normal(1, 3, 12, 12, seed=1))


@pytest.mark.parametrize(("low", "high"), [(6.0, -0.5), (1.0, 1.0), (-1.0, 2.0)])
def test_clip_whose_bounds_leave_one_number(tmp_path: Path, low: float, high: float) -> None:
    nodes = [
        node("Conv", ["x", "w"], ["a"]),
        node("Clip", ["a", "lo", "hi"], ["c"]),
        node("Add", ["a", "c"], ["y"]),
    ]
    constants = {"w": normal(4, 3, 1, 1), "lo": np.float32(low), "hi": np.float32(high)}
    model = model_of(nodes, {"x": [1, 3, 10, 10]}, {"y": [1, 4, 10, 10]}, constants)
    check(model, tmp_path, normal(1, 3, 10, 10, seed=1))


@settings(max_examples=5, deadline=None)
@given(order=st.permutations(range(8)))
def test_channels_picked_by_a_list(
    tmp_path_factory: pytest.TempPathFactory, order: list[int]
) -> None:
    # As torch's exporter writes x[:, list]: Transpose, GatherND, Transpose.
    nodes = [
        node("Conv", ["x", "w"], ["a"]),
        node("Transpose", ["a"], ["t"], perm=[1, 0, 2, 3]),
        node("GatherND", ["t", "i"], ["g"]),
        node("Transpose", ["g"], ["b"], perm=[1, 0, 2, 3]),
        node("Conv", ["b", "u"], ["y"]),
    ]
    indices = np.array([i - 8 if i == 3 else i for i in order]).reshape(8, 1)
    constants = {"w": normal(8, 3, 3, 3), "u": normal(4, 8, 1, 1, seed=2), "i": indices}
    model = model_of(nodes, {"x": [1, 3, 10, 12]}, {"y": [1, 4, 8, 10]}, constants)
    check(model, tmp_path_factory.mktemp("gather"), normal(1, 3, 10, 12, seed=1))


@pytest.mark.parametrize("size", [(10, 8), (8, 8), (9, 7), (7, 6)])
def test_a_transposed_convolution_with_an_output_shape(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    nodes = [node("ConvTranspose", ["x", "w", "b"], ["y"], strides=[3, 2], output_shape=size)]
    constants = {"w": normal(1, 2, 3, 3), "b": normal(2, seed=2)}
    model = model_of(nodes, {"x": [1, 1, 3, 3]}, {"y": [1, 2, *size]}, constants)
    check(model, tmp_path, normal(1, 1, 3, 3, seed=1))


def test_an_output_shape_that_no_pads_give_is_refused(tmp_path: Path) -> None:
    nodes = [node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], output_shape=[12, 12])]
    shapes = {"x": [1, 1, 3, 3]}, {"y": [1, 2, 12, 12]}
    onnx.save(model_of(nodes, *shapes, {"w": normal(1, 2, 3, 3)}), tmp_path / "net.onnx")
    fused = advance(deploykit.load(tmp_path / "net.onnx"), Stage.FUSED)
    for name in ("tflite", "coreml", "ncnn"):
        with pytest.raises(UnsupportedModelError, match="output_shape"):
            find_target(name).write(fused, ArtifactRequest(Precision.FP32))


def test_a_linear_layer_of_a_constant_is_folded(tmp_path: Path) -> None:
    nodes = [
        node("Gemm", ["h", "W", "B"], ["g0"], transB=1),
        node("Gemm", ["x", "V", "B"], ["g1"], transB=1),
        node("Add", ["g0", "g1"], ["q"]),
        node("Gemm", ["q", "W", "B"], ["y"], transB=1),
    ]
    constants = {
        "h": np.zeros((1, 20), np.float32),
        "W": normal(20, 20),
        "V": normal(20, 30, seed=1),
        "B": normal(20, seed=2),
    }
    model = model_of(nodes, {"x": [1, 30]}, {"y": [1, 20]}, constants)
    onnx.save(model, tmp_path / "net.onnx")
    fused = advance(deploykit.load(tmp_path / "net.onnx"), Stage.FUSED)
    assert [n.op_type for n in fused.graph.graph].count("Gemm") == 2
    check(model, tmp_path, normal(1, 30, seed=3))
