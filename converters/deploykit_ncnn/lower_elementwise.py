"""Arithmetic of two operands: BinaryOp, with numpy's broadcasting.

ncnn broadcasts like numpy between blobs of the same number of axes; so an operand with fewer gets
axes of length 1 first. The exception is a vector of as many elements as a (C, H, W) blob has
channels (the gate of squeeze-and-excite): ncnn takes one for each channel by itself. A constant
that is one number is a parameter of the layer, any other a ``MemoryData`` blob.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deploykit.graph.node_fields import FormError, needed_value, shape_of
from deploykit.graph.reading import constant_array, constant_scalar
from deploykit.tensors import Array
from deploykit_ncnn.blob_axes import Shape, blob_shape, length_params, ranked
from deploykit_ncnn.layer_graph import Param
from deploykit_ncnn.lowering_context import TABLE, LoweringContext

if TYPE_CHECKING:
    import onnx_ir as ir

_SUB, _MUL, _DIV, _POW = 1, 2, 3, 6
#: ``op_type`` of BinaryOp → the one with the operands changed over, where the first is a number.
_REVERSED = {_SUB: 7, _DIV: 8, _POW: 9}


@TABLE.register_each(Add=0, Sub=_SUB, Mul=_MUL, Div=_DIV, Max=4, Min=5, Pow=_POW)
def lower_binary(node: ir.Node, context: LoweringContext, code: int) -> None:
    """BinaryOp, by its ``op_type``."""
    if len(node.inputs) != 2:
        raise FormError(f"{len(node.inputs)} operands", "it is not in canonical form")
    values = [needed_value(node, index) for index in (0, 1)]
    numbers = [constant_scalar(v) if constant_array(v) is not None else None for v in values]
    context.output_shape(node)
    for index, number in enumerate(numbers):
        other = values[1 - index]
        if number is None or numbers[1 - index] is not None:
            continue
        if shape_of(other) != shape_of(node.outputs[0]):
            continue  # the number has axes that the result keeps
        if index == 0:
            code = _REVERSED.get(code, code)
        blob = context.read(node, 1 - index)
        context.result(node, "BinaryOp", [blob], {0: code, 1: 1, 2: number})
        return
    rank = len(shape_of(node.outputs[0]))
    blobs = [_operand(node, context, index, rank) for index in (0, 1)]
    context.result(node, "BinaryOp", blobs, {0: code} if code else {})


def scaled_by(context: LoweringContext, name: str, blob: str, factor: Array, shape: Shape) -> str:
    """The blob times a constant that broadcasts to its shape."""
    full = ranked(factor.shape, len(shape) + 1)
    held = context.memory(f"{name}_by", factor, blob_shape(full))
    return context.emit("BinaryOp", name, [blob, held], [name], {0: _MUL})[0]


def _operand(node: ir.Node, context: LoweringContext, index: int, rank: int) -> str:
    """The blob of an operand, with as many axes as the result's."""
    value = needed_value(node, index)
    shape = shape_of(value)
    wanted = blob_shape(ranked(shape, rank), f"'{value.name}'")
    array = constant_array(value)
    if array is not None:
        return context.memory(value.name or "constant", np.asarray(array, np.float32), wanted)
    if value in context.vectors and _is_map_of(context, needed_value(node, 1 - index), shape[1]):
        return context.read_value(value, as_vector=True)
    blob = context.read(node, index)
    if len(shape) == rank:
        return blob
    name = f"{value.name}_for_{context.output_name(node)}"
    params: dict[int, Param] = dict(length_params(wanted))
    return context.emit("Reshape", name, [blob], [name], params)[0]


def _is_map_of(context: LoweringContext, value: ir.Value, channels: int) -> bool:
    """Whether a value is held as a (C, H, W) blob of so many channels."""
    shape = shape_of(value)
    return value not in context.vectors and len(shape) == 4 and shape[1] == channels
