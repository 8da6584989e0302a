"""How weights and biases are stored, by precision.

fp32    float32
fp16    float16 and a DEQUANTIZE that runtimes fold when they load the file; biases stay float32
w8      int8, symmetric, for the operators that have a hybrid kernel (`Hybrid`), if they have at
        least `DYNAMIC_RANGE_MIN_ELEMENTS`; float32 for the rest; biases stay float32
int8    the integers of the quantized stage; bias int32, scale = input scale x weight scale
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from deploykit.graph.node_fields import FormError, needed_value, shape_of
from deploykit.graph.reading import constant_array
from deploykit.model import Precision
from deploykit.tensors import Array, QuantParams
from deploykit_tflite import layout
from deploykit_tflite.lowering_context import LoweringContext
from deploykit_tflite.tflite_graph import LazyArray

if TYPE_CHECKING:
    import onnx_ir as ir


class Hybrid(Enum):
    """Which kernels an operator has for float data and int8 weights."""

    NONE = "none"
    PER_TENSOR = "one scale"
    PER_CHANNEL = "one scale an output channel"


#: Tensors below this keep float weights in w8: what they save is less than the scales cost.
DYNAMIC_RANGE_MIN_ELEMENTS = 1024


def add_weights(
    context: LoweringContext,
    value: ir.Value,
    permutation: Sequence[int],
    *,
    channel_axis: int,
    hybrid: Hybrid,
    columns_of: Sequence[int] | None = None,
) -> int:
    """Weights as the node's operator reads them.

    Args:
        context: The lowering.
        value: The constant.
        permutation: From ONNX's axes to the operator's.
        channel_axis: The output channels' axis there.
        hybrid: Which kernels the operator has for float data and int8 weights.
        columns_of: For a linear layer that reads a flattened feature map in NHWC order: the map's
            NCHW shape.

    Returns:
        Index of a tensor.
    """
    name = value.name or "weights"

    def arranged(array: Array) -> Array:
        moved = array.transpose(permutation)
        if columns_of is None:
            return moved
        maps = moved.reshape(len(moved), *columns_of[1:]).transpose(layout.NHWC_FROM_NCHW)
        return maps.reshape(moved.shape)

    if context.integer:
        return _add_integers(context, name, arranged, permutation[channel_axis], channel_axis)
    graph = context.graph
    shape = shape_of(value)

    def read() -> Array:
        array = constant_array(value)
        if array is None:
            raise FormError(f"its weights '{name}' are computed", "weights must be constants")
        return arranged(array.astype(np.float32, copy=False))

    small = math.prod(shape) < DYNAMIC_RANGE_MIN_ELEMENTS
    stays_float = context.precision is not Precision.W8 or hybrid is Hybrid.NONE or small
    if context.precision is not Precision.FP16 and stays_float:
        held = tuple(shape[axis] for axis in permutation)
        return graph.add_tensor(name, held, "float32", data=LazyArray(held, "float32", read))
    reals = read()
    if context.precision is Precision.FP16:
        stored = graph.add_constant(f"{name}/float16", _as_float16(name, reals))
        target = graph.add_tensor(name, reals.shape, "float32")
        context.emit("DEQUANTIZE", (stored,), (target,), "DequantizeOptions")
        return target
    axis = channel_axis if hybrid is Hybrid.PER_CHANNEL else None
    params = symmetric_params(reals, axis)
    return graph.add_constant(name, params.quantize(reals), params)


def symmetric_params(reals: Array, axis: int | None) -> QuantParams:
    """One scale a channel, or one in all: the largest magnitude stands for 127."""
    others = tuple(a for a in range(reals.ndim) if a != axis)
    largest = np.abs(reals).max(axis=others).reshape(-1)
    scale = np.where(largest > 0, largest / np.float32(127), np.float32(1))
    return QuantParams(tuple(map(float, scale)), (0,) * len(scale), "int8", axis)


def _as_float16(name: str, reals: Array) -> Array:
    largest = float(np.abs(reals).max()) if reals.size else 0.0
    if largest > float(np.finfo(np.float16).max):
        raise FormError(
            f"its weights '{name}' reach {largest:g}, which float16 does not hold", "use fp32"
        )
    return reals.astype(np.float16)


def _add_integers(
    context: LoweringContext,
    name: str,
    arranged: Callable[[Array], Array],
    onnx_axis: int,
    channel_axis: int,
) -> int:
    params = context.params.get(name)
    if params is None or params.dtype != "int8" or any(params.zero_point):
        raise FormError(
            f"its weights '{name}' are not symmetric int8",
            "the format's int8 specification demands it: quantize the weights symmetrically",
        )
    if params.per_channel and params.axis != onnx_axis:
        raise FormError(
            f"its weights '{name}' have one scale for each index of axis {params.axis}",
            "use one scale an output channel, or one in all",
        )
    axis = channel_axis if params.per_channel else None
    stored = QuantParams(params.scale, params.zero_point, params.dtype, axis)
    return context.graph.add_constant(name, arranged(context.integers[name]), stored)


def add_bias(context: LoweringContext, node: ir.Node, value: ir.Value | None, length: int) -> int:
    """The bias of a convolution or linear layer; zeros if it has none.

    Zeros rather than an operand left out: old kernels and delegates want all three operands.
    """
    name = value.name or "bias" if value is not None else "no_bias"
    reals = constant_array(value)
    if value is not None and reals is None:
        raise FormError(f"its bias '{name}' is computed", "a bias must be a constant")
    if not context.integer:
        array = np.zeros(length, np.float32) if reals is None else reals.astype(np.float32)
        return context.graph.add_constant(name, np.ascontiguousarray(array.reshape(length)))
    params = context.params.get(name)
    if params is not None and params.dtype == "int32":
        return context.graph.add_constant(
            name, context.integers[name].reshape(length), _first_axis(params)
        )
    data = context.input_params(node)
    weights = context.params[needed_value(node, 1).name or ""]
    assert data is not None
    scale = tuple(float(np.float32(data.scale[0]) * np.float32(s)) for s in weights.scale)
    params = QuantParams(scale, (0,) * len(scale), "int32", 0 if len(scale) > 1 else None)
    array = np.zeros(length, np.float32) if reals is None else reals.reshape(length)
    return context.graph.add_constant(name, params.quantize(array), params)


def _first_axis(params: QuantParams) -> QuantParams:
    axis = 0 if params.per_channel else None
    return QuantParams(params.scale, params.zero_point, params.dtype, axis)
