"""Ops that move elements: reshape, transpose, concat, split, slice, pad, gather, expand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from deploykit.graph.node_fields import FormError, constant_ints, needed_int, needed_value
from deploykit.graph.reading import (
    constant_array,
    constant_scalar,
    input_at,
    read_int,
    read_ints,
    read_string,
)
from deploykit_tflite import layout
from deploykit_tflite.lower_elementwise import broadcast_operand
from deploykit_tflite.lowering_context import TABLE, LoweringContext
from deploykit_tflite.tflite_graph import ACTIVATION_NONE

if TYPE_CHECKING:
    import onnx_ir as ir

#: The most operands of a CONCATENATION that XNNPACK takes.
MAX_JOINED = 5


@TABLE.register("Reshape")
def lower_reshape(node: ir.Node, context: LoweringContext) -> None:
    """RESHAPE; with a TRANSPOSE before or behind it only where elements really move.

    Nothing at all where one pixel is flattened for linear layers, which flatten what they read.
    """
    shape = context.output_shape(node)
    if shape == context.shape(node):
        context.alias(node, context.input(node))
        return
    held = context.input(node)
    if _flattens_one_pixel(node, context, held):
        context.bind_unlike(node.outputs[0], held)
        return
    if node in context.plan.kept_nhwc:
        # Its readers are linear layers, whose weights are put in this order instead.
        context.bind_unlike(node.outputs[0], context.reshaped(held, shape))
        return
    to_onnx = layout.inverted(layout.held_order(len(context.shape(node))))
    moves = layout.moves_data(context.graph.tensors[held].shape, to_onnx)
    source = context.transposed(held, to_onnx) if moves else held
    params = context.graph.tensors[source].quantization
    if not layout.moves_data(shape, layout.held_order(len(shape))):
        context.reshape(source, context.output(node, params=params))
        return
    target = context.output(node, order=tuple(range(len(shape))), params=params)
    context.reshape(source, target)


def _flattens_one_pixel(node: ir.Node, context: LoweringContext, held: int) -> bool:
    output = node.outputs[0]
    shape = context.graph.tensors[held].shape
    return (
        len(shape) == layout.HELD_RANK
        and shape[1:3] == (1, 1)
        and context.output_shape(node) == (shape[0], shape[3])
        and not output.is_graph_output()
        and all(u.node.op_type == "Gemm" and u.idx == 0 for u in output.uses())
        and context.params.get(output.name or "") == context.graph.tensors[held].quantization
    )


@TABLE.register("Transpose")
def lower_transpose(node: ir.Node, context: LoweringContext) -> None:
    """TRANSPOSE of what is held; nothing at all where the file holds it that way already."""
    source = context.input(node)
    rank = len(context.shape(node))
    perm = read_ints(node, "perm", tuple(reversed(range(rank))))
    held = layout.held_order(rank)
    # Output axis a is input axis perm[a]; both stand in held order.
    permutation = tuple(held.index(perm[axis]) for axis in held)
    if permutation == tuple(range(rank)):
        context.alias(node, source)
        return
    target = context.output(node, params=context.graph.tensors[source].quantization)
    context.transpose(source, target, permutation)


@TABLE.register("Concat")
def lower_concat(node: ir.Node, context: LoweringContext) -> None:
    """CONCATENATION; in int8 every operand in the output's scale."""
    rank = len(context.output_shape(node))
    axis = layout.held_axis(needed_int(node, "axis") % rank, rank)
    params = context.output_params(node)
    operands = [context.input(node, i, params=params) for i in range(len(node.inputs))]
    emit_concat(context, operands, context.output(node), axis)


def emit_concat(context: LoweringContext, operands: Sequence[int], target: int, axis: int) -> None:
    """CONCATENATION along an axis of the tensors.

    Delegates take `MAX_JOINED` operands at most: of more, neighbours are joined first, the smallest
    ones, since what they hold is copied twice.
    """
    tensors = context.graph.tensors
    operands = list(operands)
    while len(operands) > MAX_JOINED:
        count = min(MAX_JOINED, len(operands) - MAX_JOINED + 1)
        lengths = [tensors[t].shape[axis] for t in operands]
        sums = [sum(lengths[i : i + count]) for i in range(len(operands) - count + 1)]
        at = sums.index(min(sums))
        shape = list(tensors[target].shape)
        shape[axis] = sums[at]
        joined = context.like(target, "joined", shape)
        emit_concat(context, operands[at : at + count], joined, axis)
        operands[at : at + count] = [joined]
    context.emit(
        "CONCATENATION",
        operands,
        (target,),
        "ConcatenationOptions",
        axis=axis,
        fusedActivationFunction=ACTIVATION_NONE,
    )


@TABLE.register("Split")
def lower_split(node: ir.Node, context: LoweringContext) -> None:
    """SPLIT into equal parts, otherwise a SLICE for each part that is read."""
    rank = len(context.shape(node))
    axis = layout.held_axis(read_int(node, "axis", 0) % rank, rank)
    source = context.input(node)
    params = context.graph.tensors[source].quantization
    lengths = [
        layout.held_shape(context.output_shape(node, i))[axis] for i in range(len(node.outputs))
    ]
    targets = [context.output(node, i, params=params) for i in range(len(node.outputs))]
    if len(set(lengths)) == 1:
        emit_split(context, source, targets, axis)
        return
    begin = 0
    for target, length in zip(targets, lengths, strict=True):
        emit_slice(context, source, target, [begin if a == axis else 0 for a in range(rank)])
        begin += length


def emit_split(context: LoweringContext, source: int, targets: Sequence[int], axis: int) -> None:
    """SPLIT into equal parts along an axis of the tensor."""
    operand = context.graph.add_constant("axis", np.asarray(axis, np.int32))
    context.emit("SPLIT", (operand, source), targets, "SplitOptions", numSplits=len(targets))


def emit_slice(context: LoweringContext, source: int, target: int, begin: Sequence[int]) -> None:
    """SLICE of the target's shape from a corner on."""
    first = context.graph.add_integers("begin", begin)
    length = context.graph.add_integers("size", context.graph.tensors[target].shape)
    context.emit("SLICE", (source, first, length), (target,), "SliceOptions")


@TABLE.register("Slice")
def lower_slice(node: ir.Node, context: LoweringContext) -> None:
    """SLICE; STRIDED_SLICE where a step is not 1."""
    shape = context.shape(node)
    rank = len(shape)
    starts, ends = constant_ints(node, 1), constant_ints(node, 2)
    if starts is None or ends is None:
        raise FormError("it has no starts or ends", "it is not in canonical form")
    axes = constant_ints(node, 3) or tuple(range(len(starts)))
    steps = constant_ints(node, 4) or (1,) * len(starts)
    if any(step < 1 for step in steps):
        raise FormError("a slice that runs backwards", "flip by a convolution or a Gather")
    begin, end, stride = [0] * rank, list(layout.held_shape(shape)), [1] * rank
    for start, stop, axis, step in zip(starts, ends, axes, steps, strict=True):
        at, length = layout.held_axis(axis % rank, rank), shape[axis % rank]
        begin[at] = min(start + length if start < 0 else start, length)
        end[at] = min(stop + length if stop < 0 else stop, length)
        stride[at] = step
    source = context.input(node)
    target = context.output(node, params=context.graph.tensors[source].quantization)
    if set(stride) == {1}:
        emit_slice(context, source, target, begin)
        return
    operands = [
        context.graph.add_integers(*p) for p in (("begin", begin), ("end", end), ("step", stride))
    ]
    context.emit(
        "STRIDED_SLICE",
        (source, *operands),
        (target,),
        "StridedSliceOptions",
        beginMask=0,
        endMask=0,
        ellipsisMask=0,
        newAxisMask=0,
        shrinkAxisMask=0,
    )


@TABLE.register("Pad")
def lower_pad(node: ir.Node, context: LoweringContext) -> None:
    """PAD with zeros, PADV2 with another value, MIRROR_PAD to reflect, GATHER to repeat edges."""
    rank = len(context.shape(node))
    mode = read_string(node, "mode", "constant")
    pads = constant_ints(node, 1)
    if pads is None or len(pads) != 2 * rank or input_at(node, 3) is not None:
        raise FormError("pads that do not name every axis", "it is not in canonical form")
    rows = [(pads[axis], pads[rank + axis]) for axis in layout.held_order(rank)]
    if min(pads) < 0:
        raise FormError("negative pads", "use a Slice")
    source = context.input(node)
    params = context.graph.tensors[source].quantization
    if mode in ("edge", "wrap"):
        _pad_by_gather(node, context, source, rows, mode)
        return
    target = context.output(node, params=params)
    operand = context.graph.add_integers("paddings", rows)
    if mode == "reflect":
        context.emit("MIRROR_PAD", (source, operand), (target,), "MirrorPadOptions", mode=0)
        return
    fill_value = input_at(node, 2)
    fill = 0.0 if fill_value is None else constant_scalar(fill_value)
    if fill is None:
        raise FormError("a fill value that is computed", "it must be a constant")
    if fill == 0.0:
        context.emit("PAD", (source, operand), (target,), "PadOptions")
        return
    data = np.asarray(fill, np.float32)
    filler = context.graph.add_constant(
        "fill", data if params is None else params.quantize(data), params
    )
    context.emit("PADV2", (source, operand, filler), (target,), "PadV2Options")


def _pad_by_gather(
    node: ir.Node,
    context: LoweringContext,
    source: int,
    rows: Sequence[tuple[int, int]],
    mode: str,
) -> None:
    padded = [axis for axis, (before, after) in enumerate(rows) if before or after]
    if not padded:
        context.alias(node, source)
        return
    final = context.output(node, params=context.graph.tensors[source].quantization)
    for axis in padded:
        shape = list(context.graph.tensors[source].shape)
        length, (before, after) = shape[axis], rows[axis]
        indices = np.arange(-before, length + after)
        indices = indices % length if mode == "wrap" else indices.clip(0, length - 1)
        shape[axis] = len(indices)
        target = final if axis == padded[-1] else context.like(source, "padded", shape)
        _emit_gather(context, source, target, [int(i) for i in indices], axis)
        source = target


def _emit_gather(
    context: LoweringContext, source: int, target: int, indices: Sequence[int], axis: int
) -> None:
    operand = context.graph.add_integers("indices", indices)
    context.emit("GATHER", (source, operand), (target,), "GatherOptions", axis=axis, batchDims=0)


@TABLE.register("Gather")
def lower_gather(node: ir.Node, context: LoweringContext) -> None:
    """SLICE where the indices are a run, STRIDED_SLICE's work left to GATHER otherwise."""
    indices = constant_array(needed_value(node, 1))
    if indices is None or constant_array(needed_value(node, 0)) is not None:
        raise FormError("computed indices, or a table of constants", "indices must be constants")
    shape = context.shape(node)
    rank = len(shape)
    axis = read_int(node, "axis", 0) % rank
    flat = [int(i) % shape[axis] for i in indices.reshape(-1)]
    order: tuple[int, ...] | None
    if indices.ndim == 1:
        source, at, order = context.input(node), layout.held_axis(axis, rank), None
    elif indices.ndim == 0:
        source, at = context.input(node), layout.held_axis(axis, rank)
        left = [a for a in layout.held_order(rank) if a != axis]
        order = tuple(sorted(left).index(a) for a in left)
    else:
        source, at = context.input_in_onnx_order(node), axis
        order = tuple(range(rank + indices.ndim - 1))
    target = context.output(node, order=order, params=context.graph.tensors[source].quantization)
    picked = list(context.graph.tensors[source].shape)
    picked[at] = len(flat)
    whole = context.graph.tensors[target].shape == tuple(picked)
    written = target if whole else context.like(source, "picked", picked)
    if flat == list(range(flat[0], flat[0] + len(flat))):
        emit_slice(context, source, written, [flat[0] if a == at else 0 for a in range(rank)])
    else:
        _emit_gather(context, source, written, flat, at)
    if not whole:
        context.reshape(written, target)


@TABLE.register("Expand")
def lower_expand(node: ir.Node, context: LoweringContext) -> None:
    """BROADCAST_TO."""
    shape = context.output_shape(node)
    if shape == context.shape(node):
        context.alias(node, context.input(node))
        return
    source = broadcast_operand(context, node, 0, len(shape))
    params = context.graph.tensors[source].quantization
    target = context.output(node, params=params)
    operand = context.graph.add_integers("shape", context.graph.tensors[target].shape)
    context.emit("BROADCAST_TO", (source, operand), (target,), "BroadcastToOptions")
