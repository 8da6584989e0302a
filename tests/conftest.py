"""Small models as files, made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


def tiny_network(extra_op: str = "", batch: int | str = 1) -> onnx.ModelProto:
    """Conv 3x3 > ReLU → mean → Gemm on (batch, 3, 8, 8); ``extra_op`` stands before the mean."""
    generator = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(generator.normal(0, 0.3, shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["input", "w", "b"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
    ]
    last = "r"
    if extra_op:
        nodes.append(helper.make_node(extra_op, ["r"], ["e"], "extra"))
        last = "e"
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "wl", "bl"], ["output"], "linear", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [batch, 5])],
        [weight("w", 8, 3, 3, 3), weight("b", 8), weight("wl", 5, 8), weight("bl", 5)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture
def tiny_onnx(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.onnx"
    onnx.save(tiny_network(), path)
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """32 smooth float32 tensors (n, 3, 8, 8), with the mean and spread of normalised images."""
    generator = np.random.default_rng(1)
    ramp = np.linspace(-1, 1, 8, dtype=np.float32)
    tilt = generator.normal(0, 1, (32, 3, 2)).astype(np.float32)
    tensors = tilt[..., 0, None, None] * ramp[:, None] + tilt[..., 1, None, None] * ramp
    path = tmp_path / "images.npy"
    np.save(path, tensors.astype(np.float32))
    return path


@pytest.fixture(scope="session")
def build_network() -> Callable[..., onnx.ModelProto]:
    """`tiny_network`, for tests that want another one."""
    return tiny_network
