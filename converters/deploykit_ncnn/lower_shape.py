"""Ops that move values: Reshape, Permute, Concat, Slice, Crop, Padding, Tile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from deploykit.graph.node_fields import (
    FormError,
    constant_ints,
    needed_constant,
    needed_value,
    shape_of,
)
from deploykit.graph.reading import (
    constant_array,
    constant_scalar,
    input_at,
    read_int,
    read_ints,
    read_string,
)
from deploykit_ncnn.blob_axes import Shape, blob_axis, blob_shape, length_params, permute_order
from deploykit_ncnn.layer_graph import Param
from deploykit_ncnn.lower_pooling import pool_params
from deploykit_ncnn.lowering_context import TABLE, LoweringContext

if TYPE_CHECKING:
    import onnx_ir as ir

_PAD_MODES = {"constant": 0, "edge": 1, "reflect": 2}
#: A Gather of more runs than this is no reordering of blocks.
_MOST_RUNS = 64


@TABLE.register("Reshape")
def lower_reshape(node: ir.Node, context: LoweringContext) -> None:
    """Reshape; Flatten to one axis."""
    context.shape(node)
    target, source = context.output_shape(node), needed_value(node, 0)
    if len(target) == 1 and source in context.vectors:
        context.bind(node.outputs[0], context.read_value(source, as_vector=True))
        return
    blob = context.read(node, 0)
    if len(target) == 1:
        context.result(node, "Flatten", [blob])
    else:
        context.result(node, "Reshape", [blob], dict(length_params(target)))


@TABLE.register("Transpose")
def lower_transpose(node: ir.Node, context: LoweringContext) -> None:
    """Permute."""
    rank = len(shape_of(needed_value(node, 0)))
    permutation = read_ints(node, "perm", tuple(reversed(range(rank))))
    if permutation[0] != 0:
        raise FormError(
            f"it moves the batch axis (perm {list(permutation)})",
            "leave the batch axis where it is: an ncnn blob does not have it",
        )
    context.shape(node)
    order = permute_order([blob_axis(axis, rank) for axis in permutation[1:]])
    context.result(node, "Permute", [context.read(node, 0)], {0: order})


@TABLE.register("Concat")
def lower_concat(node: ir.Node, context: LoweringContext) -> None:
    """Concat."""
    axis = blob_axis(read_int(node, "axis", 0), len(shape_of(node.outputs[0])))
    blobs = [context.read(node, index) for index in range(len(node.inputs))]
    context.result(node, "Concat", blobs, {0: axis})


@TABLE.register("Split")
def lower_split(node: ir.Node, context: LoweringContext) -> None:
    """Slice."""
    axis = context.axis(node, read_int(node, "axis", 0))
    sizes = [context.output_shape(node, index)[axis] for index in range(len(node.outputs))]
    names = [v.name or "part" for v in node.outputs]
    blobs = split_blob(context, context.title(node), context.read(node, 0), names, sizes, axis)
    for value, blob in zip(node.outputs, blobs, strict=True):
        context.bind(value, blob)


def split_blob(
    context: LoweringContext,
    title: str,
    blob: str,
    names: Sequence[str],
    sizes: Sequence[int],
    axis: int,
) -> tuple[str, ...]:
    """The parts of a blob, of these sizes along an axis."""
    return context.emit("Slice", title, [blob], names, {0: tuple(sizes), 1: axis})


@TABLE.register("Slice")
def lower_slice(node: ir.Node, context: LoweringContext) -> None:
    """Crop; behind it, for steps along height and width, a Pooling with windows of one element."""
    full = shape_of(needed_value(node, 0))
    starts, ends = constant_ints(node, 1), constant_ints(node, 2)
    if starts is None or ends is None:
        raise FormError("it has no starts or ends", "it is not in canonical form")
    axes = constant_ints(node, 3) or tuple(range(len(starts)))
    steps = constant_ints(node, 4) or (1,) * len(starts)
    if min(steps) < 1:
        raise FormError("a slice that runs backwards", "ncnn has no layer that flips an axis")
    shape = context.shape(node)
    begin, end, stride = [0] * len(shape), list(shape), [1] * len(shape)
    for start, stop, axis, step in zip(starts, ends, axes, steps, strict=True):
        length = full[axis]
        first = min(start + length if start < 0 else start, length)
        last = min(stop + length if stop < 0 else stop, length)
        if axis == 0 and (first, last) == (0, 1):
            continue
        own = blob_axis(axis, len(full))
        begin[own], end[own], stride[own] = first, last, step
    blob, name = context.read(node, 0), context.output_name(node)
    strided = max(stride) > 1
    if strided and (len(shape) != 3 or stride[0] > 1):
        raise FormError(
            f"a slice with steps {stride} of a blob of {len(shape)} axes",
            "ncnn can take every n-th row and column of a (C, H, W) blob only",
        )
    if not strided:
        context.result(node, "Crop", [blob], crop_params(shape, begin, end))
        return
    if (begin, end) != ([0] * len(shape), list(shape)):
        wanted = f"{name}_cropped"
        (blob,) = context.emit("Crop", wanted, [blob], [wanted], crop_params(shape, begin, end))
    context.result(node, "Pooling", [blob], pool_params(0, (1, 1), tuple(stride[1:])))


def crop_params(shape: Shape, begin: Sequence[int], end: Sequence[int]) -> dict[int, Param]:
    """Starts, ends and axes of a Crop; axes that stay whole are omitted (all axes if all do)."""
    rows = [(b, e, a) for a, (b, e) in enumerate(zip(begin, end, strict=True))]
    kept = [row for row in rows if row[:2] != (0, shape[row[2]])] or rows
    starts, ends, axes = zip(*kept, strict=True)
    return {9: tuple(starts), 10: tuple(ends), 11: tuple(axes)}


@TABLE.register("Pad")
def lower_pad(node: ir.Node, context: LoweringContext) -> None:
    """Padding: constant on any axis of (C, H, W), reflect and edge on height and width."""
    shape, rank = context.shape(node), len(shape_of(needed_value(node, 0)))
    mode, pads = read_string(node, "mode", "constant"), constant_ints(node, 1)
    if pads is None or len(pads) != 2 * rank or input_at(node, 3) is not None:
        raise FormError("pads that do not name every axis", "it is not in canonical form")
    if min(pads) < 0:
        raise FormError("negative pads", "use a Slice")
    if mode not in _PAD_MODES:
        raise FormError(f"padding by mode '{mode}'", "pad by constant, reflect or edge")
    rows = [(pads[axis], pads[rank + axis]) for axis in range(rank)]
    if any(rows[0]) or len(shape) > 3:
        raise FormError(f"pads {list(pads)} of a value of shape {shape_of(needed_value(node, 0))}")
    front, (top, bottom), (left, right) = [(0, 0)] * (3 - len(shape)) + rows[1:]
    if mode != "constant" and any(front):
        raise FormError(f"padding of channels by mode '{mode}'", "pad height and width only")
    fill = _fill(node) if mode == "constant" else 0.0
    params: dict[int, Param] = {0: top, 1: bottom, 2: left, 3: right, 4: _PAD_MODES[mode]}
    params |= {5: fill} if fill else {}
    params |= {7: front[0], 8: front[1]} if any(front) else {}
    context.result(node, "Padding", [context.read(node, 0)], params)


def _fill(node: ir.Node) -> float:
    value = input_at(node, 2)
    fill = 0.0 if value is None else constant_scalar(value)
    if fill is None:
        raise FormError("a fill value that is computed", "it must be a constant")
    return fill


@TABLE.register("Gather")
def lower_gather(node: ir.Node, context: LoweringContext) -> None:
    """Crop of each run of indices, and a Concat of them."""
    if constant_array(needed_value(node, 0)) is not None:
        raise FormError("a table of constants", "ncnn's lookup layer takes integers of the app")
    indices = needed_constant(node, 1, "indices")
    shape, axis = context.shape(node), context.axis(node, read_int(node, "axis", 0))
    target = context.output_shape(node)
    runs = _runs([int(i) % shape[axis] for i in indices.reshape(-1)])
    if len(runs) > _MOST_RUNS:
        raise FormError(
            f"{len(runs)} runs of indices", f"ncnn has no gather: at most {_MOST_RUNS} runs"
        )
    name, blob = context.output_name(node), context.read(node, 0)
    parts: list[str] = []
    for first, last in runs:
        begin, end = [0] * len(shape), list(shape)
        begin[axis], end[axis] = first, last
        wanted = f"{name}_{first}_{last}"
        parts += context.emit("Crop", wanted, [blob], [wanted], crop_params(shape, begin, end))
    picked = parts[0]
    if len(parts) > 1:
        (picked,) = context.emit("Concat", f"{name}_joined", parts, [f"{name}_joined"], {0: axis})
    kind, params = ("Reshape", length_params(target)) if len(target) > 1 else ("Flatten", {})
    context.result(node, kind, [picked], dict(params))


def _runs(indices: Sequence[int]) -> list[tuple[int, int]]:
    """(first, behind the last) of each run of indices that follow one another."""
    runs: list[tuple[int, int]] = []
    for index in indices:
        if runs and runs[-1][1] == index:
            runs[-1] = (runs[-1][0], index + 1)
        else:
            runs.append((index, index + 1))
    return runs


@TABLE.register("Expand")
def lower_expand(node: ir.Node, context: LoweringContext) -> None:
    """Tile, behind a Reshape where axes are added."""
    given, target = shape_of(needed_value(node, 0)), context.output_shape(node)
    full = (1,) * (len(target) + 1 - len(given)) + given
    shape, blob = blob_shape(full), context.read(node, 0)
    name = context.output_name(node)
    if len(given) != len(full):
        wanted = f"{name}_ranked"
        params: dict[int, Param] = dict(length_params(shape))
        (blob,) = context.emit("Reshape", wanted, [blob], [wanted], params)
    # One number for each axis of the blob, outermost first.
    repeats = tuple(b if a == 1 else 1 for a, b in zip(shape, target, strict=True))
    context.result(node, "Tile", [blob], {2: repeats})
