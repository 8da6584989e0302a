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


def quantized_gemm(
    *,
    activations: str = "uint8",
    weights: str = "uint8",
    per_channel: bool = False,
    transposed: bool = False,
    product: str = "Gemm",
    bias: str = "int32",
    alpha: float = 1.0,
    seed: int = 0,
) -> onnx.ModelProto:
    """A linear layer of 8 inputs and 5 outputs in QDQ form.

    Args:
        activations: ``int8``, ``uint8`` or ``int16``.
        weights: ``int8`` (symmetric) or ``uint8`` (any zero point).
        per_channel: Whether the weights have a scale an output.
        transposed: Whether the weights are stored (outputs, inputs); of a Gemm.
        product: ``Gemm``, or ``MatMul`` with an Add behind it.
        bias: ``int32`` behind DequantizeLinear, ``float``, or ``none``.
        alpha: Of a Gemm.
        seed: Of the numbers.
    """
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(8, 5))
    low, high = np.minimum(matrix.min(0), 0), np.maximum(matrix.max(0), 0)
    if not per_channel:
        low, high = low.min(keepdims=True), high.max(keepdims=True)
    symmetric = weights == "int8"
    scale = np.float32(np.maximum(-low, high) / 127 if symmetric else (high - low) / 255)
    zero = np.zeros_like(scale) if symmetric else np.rint(-low / scale)
    ends = (-127, 127) if symmetric else (0, 255)
    integers = np.clip(np.rint(matrix / scale) + zero, *ends).astype(weights)
    if transposed:
        integers = integers.T.copy()
    wide = {"int8": (6 / 255, -28), "uint8": (6 / 255, 100), "int16": (4 / 32767, 0)}[activations]
    axis = {"axis": 0 if transposed else 1} if per_channel else {}
    shape = (-1,) if per_channel else ()
    offset = rng.normal(size=5) * 4
    steps = scale * np.float32(wide[0] * alpha)
    constants: dict[str, Array] = {
        "in_s": np.float32(wide[0]),
        "in_z": np.asarray(wide[1], activations),
        "out_s": np.float32(30 / 255 if activations != "int16" else 30 / 32767),
        "out_z": np.asarray({"int8": 0, "uint8": 128, "int16": 0}[activations], activations),
        "w_q": integers,
        "w_s": scale.reshape(shape),
        "w_z": zero.astype(weights).reshape(shape),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "in_s", "in_z"], ["a_q"]),
        helper.make_node("DequantizeLinear", ["a_q", "in_s", "in_z"], ["a"]),
        helper.make_node("DequantizeLinear", ["w_q", "w_s", "w_z"], ["w"], **axis),
    ]
    if bias == "int32":
        constants["b_q"] = np.rint(offset / steps).astype(np.int32) + np.zeros(5, np.int32)
        constants["b_s"] = steps.reshape(shape)
        along = {"axis": 0} if per_channel else {}
        nodes.append(helper.make_node("DequantizeLinear", ["b_q", "b_s"], ["b"], **along))
    elif bias == "float":
        constants["b"] = offset.astype(np.float32)
    if product == "Gemm":
        inputs = ["a", "w"] if bias == "none" else ["a", "w", "b"]
        nodes.append(helper.make_node("Gemm", inputs, ["g"], transB=int(transposed), alpha=alpha))
    elif bias == "none":
        nodes.append(helper.make_node("MatMul", ["a", "w"], ["g"]))
    else:
        nodes.append(helper.make_node("MatMul", ["a", "w"], ["p"]))
        nodes.append(helper.make_node("Add", ["p", "b"], ["g"]))
    nodes += [
        helper.make_node("QuantizeLinear", ["g", "out_s", "out_z"], ["y_q"]),
        helper.make_node("DequantizeLinear", ["y_q", "out_s", "out_z"], ["y"]),
    ]
    opset, version = (21, 10) if activations == "int16" else (13, 8)
    return model_of(nodes, {"x": (1, 8)}, {"y": (1, 5)}, constants, opset=opset, ir_version=version)


def with_pixels(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model of input ``x`` (1, 3, 16, 16) that reads uint8 NHWC pixels and normalizes them."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    graph.input[0].CopyFrom(
        helper.make_tensor_value_info("pixels", TensorProto.UINT8, [1, 16, 16, 3])
    )
    mean, std = np.float32([[[100]], [[120]], [[140]]]), np.float32([[[60]], [[50]], [[40]]])
    graph.initializer.extend(
        [numpy_helper.from_array(mean, "pixel_mean"), numpy_helper.from_array(std, "pixel_std")]
    )
    before = [
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["numbers", "pixel_mean"], ["centred"]),
        helper.make_node("Div", ["centred", "pixel_std"], ["x"]),
    ]
    nodes = [*before, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return changed


def with_halves(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with a float16 input, a Cast behind it, and float16 constants behind Casts."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    (source,) = graph.input
    source.type.tensor_type.elem_type = TensorProto.FLOAT16
    nodes = [helper.make_node("Cast", ["x"], ["x_wide"], to=TensorProto.FLOAT)]
    for index, tensor in enumerate(graph.initializer):
        if tensor.data_type == TensorProto.FLOAT and tensor.name.endswith("_b"):
            half = numpy_helper.to_array(tensor).astype(np.float16)
            name = tensor.name
            graph.initializer[index].CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
            nodes.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == "x":
                node.input[index] = "x_wide"
    nodes += graph.node
    del graph.node[:]
    graph.node.extend(nodes)
    return changed


def channel_norm() -> onnx.ModelProto:
    """A layer normalization over the channels of a map, between transposes, in a residual block."""
    rng = np.random.default_rng(0)

    def numbers(*shape: int, scale: float = 1.0) -> Array:
        return rng.normal(0, scale, shape).astype(np.float32)

    return model_of(
        [
            helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1] * 4, strides=[2, 2]),
            helper.make_node("Transpose", ["c"], ["t"], perm=[0, 2, 3, 1]),
            helper.make_node("LayerNormalization", ["t", "g", "h"], ["n"], axis=-1, epsilon=1e-6),
            helper.make_node("Transpose", ["n"], ["u"], perm=[0, 3, 1, 2]),
            helper.make_node("Conv", ["u", "p"], ["v"]),
            helper.make_node("Relu", ["v"], ["r"]),
            helper.make_node("Add", ["c", "r"], ["y"]),
        ],
        {"x": (1, 3, 24, 24)},
        {"y": (1, 8, 12, 12)},
        {
            "w": numbers(8, 3, 3, 3, scale=0.3),
            "b": numbers(8, scale=0.1),
            "g": 1 + numbers(8, scale=0.2),
            "h": numbers(8, scale=0.2),
            "p": numbers(8, 8, 1, 1, scale=0.3),
        },
    )


def batch_of_two() -> onnx.ModelProto:
    """A convolution of two samples at a time."""
    weights = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    return model_of(
        [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Relu", ["c"], ["y"])],
        {"x": (2, 3, 10, 10)},
        {"y": (2, 4, 8, 8)},
        {"w": weights},
    )


def crossed_clip() -> onnx.ModelProto:
    """A Clip whose lower bound is above its upper one: every element becomes the upper one."""
    weights = np.random.default_rng(0).normal(size=(4, 3, 1, 1)).astype(np.float32)
    return model_of(
        [
            helper.make_node("Conv", ["x", "w"], ["a"]),
            helper.make_node("Clip", ["a", "low", "high"], ["c"]),
            helper.make_node("Add", ["a", "c"], ["y"]),
        ],
        {"x": (1, 3, 10, 10)},
        {"y": (1, 4, 10, 10)},
        {"w": weights, "low": np.float32(6), "high": np.float32(-0.5)},
    )


def two_inputs() -> onnx.ModelProto:
    """A convolution of one input, added to another."""
    weights = np.random.default_rng(0).normal(size=(4, 3, 1, 1)).astype(np.float32)
    return model_of(
        [
            helper.make_node("Conv", ["a", "w"], ["c"]),
            helper.make_node("Add", ["c", "b"], ["y"]),
        ],
        {"a": (1, 3, 8, 8), "b": (1, 4, 8, 8)},
        {"y": (1, 4, 8, 8)},
        {"w": weights},
    )
