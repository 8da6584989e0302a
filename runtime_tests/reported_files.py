"""Small files as public reports describe them, for the tests of what they broke."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, np.dtype[Any]]


def model_of(
    nodes: Sequence[Any],
    inputs: Mapping[str, Sequence[int]],
    outputs: Mapping[str, Sequence[int]],
    constants: Mapping[str, Array],
    *,
    opset: int = 17,
    ir_version: int = 8,
    dtypes: Mapping[str, int] | None = None,
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    """An ONNX model; inputs and outputs are float32 where ``dtypes`` does not say otherwise."""

    def describe(values: Mapping[str, Sequence[int]]) -> list[Any]:
        kinds = dtypes or {}
        return [
            helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), list(shape))
            for n, shape in values.items()
        ]

    tensors = [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()]
    graph = helper.make_graph(list(nodes), "g", describe(inputs), describe(outputs), tensors)
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version)


def smooth(rng: np.random.Generator, count: int, *shape: int) -> Array:
    """Smooth maps (count, C, H, W), float32: neighbouring pixels are alike."""
    data = rng.standard_normal((count, *shape))
    for axis in (2, 3):
        data = data + np.roll(data, 1, axis) + np.roll(data, 2, axis)
    return (data / 3).astype(np.float32)


def dead_channel() -> onnx.ModelProto:
    """A convolution one of whose channels training switched off: weights of 1e-9 beside 0.3."""
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32)
    weights[2] *= 3e-9
    return model_of(
        [
            helper.make_node("Conv", ["x", "w", "b"], ["a"]),
            helper.make_node("Relu", ["a"], ["c"]),
            helper.make_node("Conv", ["c", "u"], ["y"]),
        ],
        {"x": (1, 3, 12, 12)},
        {"y": (1, 4, 10, 10)},
        {
            "w": weights,
            "b": rng.normal(0, 0.1, 8).astype(np.float32),
            "u": rng.normal(size=(4, 8, 1, 1)).astype(np.float32),
        },
    )


def gated_division(floor: float = 1e-3) -> onnx.ModelProto:
    """a / (b b + floor), both parts of one convolution's result."""
    rng = np.random.default_rng(0)
    return model_of(
        [
            helper.make_node("Conv", ["x", "W"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("Split", ["r", "sizes"], ["a", "b"], axis=1),
            helper.make_node("Mul", ["b", "b"], ["bb"]),
            helper.make_node("Add", ["bb", "e"], ["d"]),
            helper.make_node("Div", ["a", "d"], ["y"]),
        ],
        {"x": (1, 3, 32, 32)},
        {"y": (1, 7, 16, 16)},
        {
            "W": rng.normal(0, 0.2, (8, 3, 3, 3)).astype(np.float32),
            "sizes": np.array([7, 1]),
            "e": np.float32(floor),
        },
    )
