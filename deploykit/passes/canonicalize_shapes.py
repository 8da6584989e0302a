"""Ops that move elements without computing with them.

1. Flatten, Squeeze, Unsqueeze and Reshape: Reshape to a constant shape without 0 and -1.
2. Transpose: ``perm`` explicit. Concat, Split: axis not negative; Split's sizes a constant input.
3. SplitToSequence whose parts are all taken by SequenceAt at constant places: Split.
4. Slice: starts, ends, axes and steps constant, inside of the shape, not negative. A negative step
   stays: no target has it.
5. Pad: mode explicit, pads for every axis, a constant scalar value.
6. Expand: constant shape, that of the output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deploykit.graph.editing import GraphEditor, drop_attributes, set_attributes, set_inputs
from deploykit.graph.reading import (
    constant_array,
    constant_ints,
    constant_scalar,
    input_at,
    is_op,
    known_shape,
    read_int,
    read_ints,
    read_string,
)
from deploykit.passes.base import Findings
from deploykit.passes.canonical_rule import rule_for

if TYPE_CHECKING:
    import onnx_ir as ir


@rule_for("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def canonicalize_reshape(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    """Case 1."""
    shape = known_shape(node.outputs[0])
    if node.op_type != "Reshape":
        findings.matched(node, f"{node.op_type} > Reshape")
    wanted = input_at(node, 1) if node.op_type == "Reshape" else None
    if constant_ints(wanted) != shape or 0 in shape:
        wanted = editor.ints(f"{node.outputs[0].name}.shape", shape)
    node.op_type = "Reshape"
    set_inputs(node, [node.inputs[0], wanted])
    drop_attributes(node, "axis", "axes")
    set_attributes(node, allowzero=0)


@rule_for("Transpose")
def canonicalize_transpose(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    """Case 2."""
    rank = len(known_shape(node.inputs[0]))
    set_attributes(node, perm=read_ints(node, "perm", tuple(reversed(range(rank)))))


@rule_for("Concat")
def canonicalize_concat(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    """Case 2."""
    rank = len(known_shape(node.outputs[0]))
    set_attributes(node, axis=read_int(node, "axis", 0) % rank)


@rule_for("Split")
def canonicalize_split(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    """Case 2."""
    shape = known_shape(node.inputs[0])
    axis = read_int(node, "axis", 0) % len(shape)
    sizes = [known_shape(output)[axis] for output in node.outputs]
    given = input_at(node, 1)
    if constant_ints(given) != tuple(sizes):
        given = editor.ints(f"{node.outputs[0].name}.sizes", sizes)
    set_inputs(node, [node.inputs[0], given])
    drop_attributes(node, "num_outputs", "split")
    set_attributes(node, axis=axis)


@rule_for("SplitToSequence")
def canonicalize_split_to_sequence(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    """Case 3."""
    shape = known_shape(node.inputs[0])
    axis = read_int(node, "axis", 0) % len(shape)
    given = constant_array(input_at(node, 1))
    takers = [use.node for use in node.outputs[0].uses()]
    places = [constant_scalar(input_at(taker, 1)) for taker in takers]
    if not all(is_op(taker, "SequenceAt") for taker in takers) or None in places:
        findings.skipped(node, "its parts are not all taken at constant places")
        return
    if given is None:
        findings.skipped(node, "the sizes of SplitToSequence are computed, or it drops its axis")
        return
    if given.ndim == 0:
        size, extent = int(given), shape[axis]
        sizes = [min(size, extent - start) for start in range(0, extent, size)]
    else:
        sizes = [int(s) for s in given]
    _split_for(node, editor, takers, [int(p) % len(sizes) for p in places if p is not None], sizes)
    findings.matched(node, "SplitToSequence and SequenceAt > Split")


def _split_for(
    node: ir.Node,
    editor: GraphEditor,
    takers: list[ir.Node],
    places: list[int],
    sizes: list[int],
) -> None:
    shape = known_shape(node.inputs[0])
    axis = read_int(node, "axis", 0) % len(shape)
    shapes = [(*shape[:axis], size, *shape[axis + 1 :]) for size in sizes]
    name = node.outputs[0].name or ""
    outputs = editor.node_with_outputs(
        "Split",
        [node.inputs[0], editor.ints(f"{name}.sizes", sizes)],
        shapes,
        like=node,
        dtype=node.inputs[0].dtype if node.inputs[0] is not None else None,
        attributes={"axis": axis},
        name=f"{name}.part",
    )
    named: set[int] = set()
    for taker, place in zip(takers, places, strict=True):
        if place in named and not taker.outputs[0].is_graph_output():
            taker.outputs[0].replace_all_uses_with(outputs[place])
        else:
            editor.take_over(taker.outputs[0], outputs[place])
            named.add(place)
        editor.graph.remove(taker, safe=True)
    editor.graph.remove(node, safe=True)


@rule_for("Slice")
def canonicalize_slice(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    """Case 4."""
    shape = known_shape(node.inputs[0])
    starts, ends = constant_ints(input_at(node, 1)), constant_ints(input_at(node, 2))
    axes = constant_ints(input_at(node, 3))
    steps = constant_ints(input_at(node, 4))
    if starts is None or ends is None:
        findings.skipped(node, "the bounds of Slice are computed")
        return
    axes = axes if axes is not None else tuple(range(len(starts)))
    steps = steps if steps is not None else (1,) * len(starts)
    if any(step < 0 for step in steps):
        findings.skipped(node, "Slice with a negative step")
        return
    ranges = {}
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        axis %= len(shape)
        low, high, _ = slice(start, end, step).indices(shape[axis])
        ranges[axis] = (low, max(low, high), step)
    order = sorted(ranges)
    write_slice(node, editor, order, [ranges[a] for a in order])


def write_slice(
    node: ir.Node, editor: GraphEditor, axes: list[int], ranges: list[tuple[int, int, int]]
) -> None:
    """Make a node the Slice of these axes, with (start, end, step) of each."""
    name = node.outputs[0].name
    wanted = {
        "starts": [r[0] for r in ranges],
        "ends": [r[1] for r in ranges],
        "axes": axes,
        "steps": [r[2] for r in ranges],
    }
    inputs = [node.inputs[0]]
    for index, (role, numbers) in enumerate(wanted.items(), start=1):
        given = input_at(node, index) if node.op_type == "Slice" else None
        same = constant_ints(given) == tuple(numbers)
        inputs.append(given if same else editor.ints(f"{name}.{role}", numbers))
    node.op_type = "Slice"
    set_inputs(node, inputs)


@rule_for("Pad")
def canonicalize_pad(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    """Case 5."""
    rank = len(known_shape(node.inputs[0]))
    pads, axes = constant_ints(input_at(node, 1)), constant_ints(input_at(node, 3))
    mode = read_string(node, "mode", "constant")
    fill = input_at(node, 2)
    number = 0.0 if fill is None else constant_scalar(fill)
    if pads is None or number is None:
        findings.skipped(node, f"the {'pads' if pads is None else 'value'} of Pad are computed")
        return
    wanted = list(pads)
    if axes is not None:
        wanted = [0] * (2 * rank)
        for index, axis in enumerate(axes):
            wanted[axis % rank] = pads[index]
            wanted[rank + axis % rank] = pads[len(axes) + index]
        findings.matched(node, "pads for some axes > for all")
    name = node.outputs[0].name
    pads_value = input_at(node, 1) if axes is None else editor.ints(f"{name}.pads", wanted)
    inputs = [node.inputs[0], pads_value]
    if mode == "constant":
        scalar = fill is not None and known_shape(fill) == ()
        inputs.append(
            fill if scalar else editor.constant(f"{name}.value", np.array(number, np.float32))
        )
    set_inputs(node, inputs)
    set_attributes(node, mode=mode)


@rule_for("Expand")
def canonicalize_expand(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    """Case 6."""
    shape = known_shape(node.outputs[0])
    if constant_ints(node.inputs[1]) != shape:
        set_inputs(node, [node.inputs[0], editor.ints(f"{node.outputs[0].name}.shape", shape)])
