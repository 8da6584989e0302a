"""Ops that move values: reshape, transpose, concat, split, slice, pad, gather, expand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deploykit.graph.node_fields import FormError, constant_ints, needed_value
from deploykit.graph.reading import (
    constant_array,
    constant_scalar,
    input_at,
    read_int,
    read_ints,
    read_string,
)
from deploykit_coreml.lowering_context import TABLE, LoweringContext

if TYPE_CHECKING:
    import onnx_ir as ir

_PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}


@TABLE.register("Reshape")
def lower_reshape(node: ir.Node, context: LoweringContext) -> None:
    """reshape."""
    shape = list(context.output_shape(node))
    if not shape:
        raise FormError("a reshape to a single number", "keep one axis")
    context.result(node, "reshape", x=context.read(node, 0), shape=shape)


@TABLE.register("Transpose")
def lower_transpose(node: ir.Node, context: LoweringContext) -> None:
    """transpose."""
    rank = len(context.shape(node))
    perm = list(read_ints(node, "perm", tuple(reversed(range(rank)))))
    context.result(node, "transpose", x=context.read(node, 0), perm=perm)


@TABLE.register("Concat")
def lower_concat(node: ir.Node, context: LoweringContext) -> None:
    """concat."""
    axis = read_int(node, "axis", 0) % len(context.output_shape(node))
    values = [context.read(node, index) for index in range(len(node.inputs))]
    context.result(node, "concat", values=values, axis=axis, interleave=False)


@TABLE.register("Split")
def lower_split(node: ir.Node, context: LoweringContext) -> None:
    """split."""
    axis = read_int(node, "axis", 0) % len(context.shape(node))
    sizes = [context.output_shape(node, index)[axis] for index in range(len(node.outputs))]
    split_into(node, context, context.read(node, 0), axis, sizes)


def split_into(
    node: ir.Node, context: LoweringContext, variable: Any, axis: int, sizes: list[int]
) -> None:
    """split into the outputs of a node."""
    if len(sizes) == 1:
        context.result(node, "identity", x=variable)
        return
    even = len(set(sizes)) == 1
    form: dict[str, Any] = {"num_splits": len(sizes)} if even else {"split_sizes": sizes}
    parts = context.emit("split", f"{node.outputs[0].name}_split", x=variable, axis=axis, **form)
    for index, part in enumerate(parts):
        part.name = context.unique(context.output_name(node, index))
        context.bind(node, part, index)


@TABLE.register("Slice")
def lower_slice(node: ir.Node, context: LoweringContext) -> None:
    """slice_by_index."""
    shape = context.shape(node)
    starts, ends = constant_ints(node, 1), constant_ints(node, 2)
    if starts is None or ends is None:
        raise FormError("it has no starts or ends", "it is not in canonical form")
    axes = constant_ints(node, 3) or tuple(range(len(starts)))
    steps = constant_ints(node, 4) or (1,) * len(starts)
    if min(steps) < 1:
        raise FormError("a slice that runs backwards", "flip by a convolution or a Gather")
    begin, end, stride = [0] * len(shape), list(shape), [1] * len(shape)
    for start, stop, axis, step in zip(starts, ends, axes, steps, strict=True):
        length = shape[axis]
        begin[axis] = min(start + length if start < 0 else start, length)
        end[axis] = min(stop + length if stop < 0 else stop, length)
        stride[axis] = step
    x = context.read(node, 0)
    context.result(node, "slice_by_index", x=x, begin=begin, end=end, stride=stride)


@TABLE.register("Pad")
def lower_pad(node: ir.Node, context: LoweringContext) -> None:
    """pad: constant on any axis, reflect and replicate on the last two."""
    rank = len(context.shape(node))
    mode = read_string(node, "mode", "constant")
    pads = constant_ints(node, 1)
    if pads is None or len(pads) != 2 * rank or input_at(node, 3) is not None:
        raise FormError("pads that do not name every axis", "it is not in canonical form")
    if min(pads) < 0:
        raise FormError("negative pads", "use a Slice")
    if mode not in _PAD_MODES:
        raise FormError(f"padding by mode '{mode}'", "pad by constant, reflect or edge")
    rows = [(pads[axis], pads[rank + axis]) for axis in range(rank)]
    if mode != "constant":
        if any(map(any, rows[:-2])):
            raise FormError(f"padding by mode '{mode}' of an axis before the last two")
        rows = rows[-2:]
    arguments: dict[str, Any] = {"constant_val": context.scalar(0.0)}
    value = input_at(node, 2)
    if mode == "constant" and value is not None:
        fill = constant_scalar(value)
        if fill is None:
            raise FormError("a fill value that is computed", "it must be a constant")
        arguments = {"constant_val": context.scalar(fill)}
    context.result(
        node,
        "pad",
        x=context.read(node, 0),
        pad=[rows_of for pair in rows for rows_of in pair],
        mode=_PAD_MODES[mode],
        **arguments,
    )


@TABLE.register("Gather")
def lower_gather(node: ir.Node, context: LoweringContext) -> None:
    """slice_by_index where the indices are a run, gather otherwise."""
    indices = constant_array(needed_value(node, 1))
    if indices is None or constant_array(needed_value(node, 0)) is not None:
        raise FormError("computed indices, or a table of constants", "indices must be constants")
    shape, x = context.shape(node), context.read(node, 0)
    axis = read_int(node, "axis", 0) % len(shape)
    flat = [int(i) % shape[axis] for i in indices.reshape(-1)]
    target = list(context.output_shape(node))
    if not target:
        raise FormError("a single element of a vector", "keep one axis")
    name = context.output_name(node)
    whole = indices.ndim == 1
    picked_name = name if whole else f"{name}_picked"
    if flat == list(range(flat[0], flat[0] + len(flat))):
        begin, end = [0] * len(shape), list(shape)
        begin[axis], end[axis] = flat[0], flat[0] + len(flat)
        picked = context.emit("slice_by_index", picked_name, x=x, begin=begin, end=end)
    else:
        picked = context.emit("gather", picked_name, x=x, indices=flat, axis=axis)
    if not whole:
        picked = context.emit("reshape", name, x=picked, shape=target)
    context.bind(node, picked)


@TABLE.register("Expand")
def lower_expand(node: ir.Node, context: LoweringContext) -> None:
    """tile, behind a reshape where axes are added."""
    shape, target = context.shape(node), context.output_shape(node)
    x, name = context.read(node, 0), context.output_name(node)
    if len(shape) < len(target):
        shape = (1,) * (len(target) - len(shape)) + shape
        x = context.emit("reshape", f"{name}_ranked", x=x, shape=list(shape))
    repeats = [1 if a == b else b for a, b in zip(shape, target, strict=True)]
    context.bind(node, context.emit("tile", name, x=x, reps=repeats))
