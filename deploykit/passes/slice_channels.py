"""Reshape, Slice, Reshape that cut out whole channels → Slice of the channels.

A Reshape moves no element, so a Slice of one axis behind it is one run of elements where all axes
before that one have length 1. If the run is whole channels of a map x of batch 1, then

    reshape(slice(reshape(x, s), [a, b) of axis k), (1, n, H, W)) = slice(x, [a r, b r) of axis 1)

with r = prod(s[k + 1:]) / (H W) and n = (b - a) r. Exporters write so what ``x.reshape(2, -1, c, h,
w)`` and ``x[0]``, ``x[1]`` do to a shuffled map: then an axis before the batch is sliced, which is
no channel axis to any target.

Reasons: the Slice has steps or several axes; axes before it are longer than 1; the run is no whole
channels; a part is read otherwise than as a map of the same height and width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from deploykit.graph.editing import GraphEditor
from deploykit.graph.provenance import copy_provenance
from deploykit.graph.reading import constant_ints, input_at, is_op, known_shape, producer_of
from deploykit.passes.base import Findings, Pass, PassResult

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class SliceChannels(Pass):
    """See the module's docstring."""

    requires: ClassVar[frozenset[str]] = frozenset({"canonical", "static_shapes"})
    ensures: ClassVar[frozenset[str]] = frozenset({"channels_sliced"})
    breaks: ClassVar[frozenset[str]] = frozenset({"no_dead_code"})

    def apply(self, model: ir.Model) -> PassResult:
        """Rewrite every Slice that reads a Reshape of a map."""
        findings = Findings(self.name)
        editor = GraphEditor(model.graph)
        for node in list(model.graph):
            inner = producer_of(node.inputs[0], "Reshape") if is_op(node, "Slice") else None
            if inner is not None and len(known_shape(inner.inputs[0])) == 4:
                _rewrite(node, inner, editor, findings)
        return findings.result()


def _rewrite(node: ir.Node, inner: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    source, part = inner.inputs[0], node.outputs[0]
    shape = known_shape(source)
    (first, last), reason = channel_span(shape, known_shape(inner.outputs[0]), node)
    wanted = (1, last - first, *shape[2:])
    readers = [use.node for use in part.uses()]
    if not reason and (
        part.is_graph_output()
        or not all(is_op(r, "Reshape") and known_shape(r.outputs[0]) == wanted for r in readers)
    ):
        reason = f"the part is read otherwise than as a map of shape {wanted}"
    if reason:
        findings.skipped(node, reason)
        return
    name = part.name or "part"
    bounds = (("starts", first), ("ends", last), ("axes", 1), ("steps", 1))
    for reader in readers:
        sliced = editor.node(
            "Slice",
            [source, *(editor.ints(f"{name}.{what}", [number]) for what, number in bounds)],
            wanted,
            like=node,
            before=reader,
            name=f"{name}.channels",
        )
        maker = producer_of(sliced)
        if maker is not None:
            copy_provenance([reader], maker)
        findings.matched(reader, f"Reshape, Slice, Reshape > Slice of channels {first} to {last}")
        editor.take_over(reader.outputs[0], sliced)
        editor.remove_if_unread(reader)
    editor.remove_if_unread(node, inner)


def channel_span(
    shape: tuple[int, ...], middle: tuple[int, ...], node: ir.Node
) -> tuple[tuple[int, int], str]:
    """The channels that a Slice behind a Reshape holds.

    Args:
        shape: NCHW shape of the map before.
        middle: Shape between the two.
        node: The Slice.

    Returns:
        The first channel and the one behind the last, and no reason; or zeros and the reason why
        it holds no whole channels.
    """
    none = (0, 0)
    starts, ends, axes, steps = (constant_ints(input_at(node, i)) for i in range(1, 5))
    if not starts or not ends or not axes or len(axes) != 1 or steps != (1,):
        return none, "it has steps, or several axes"
    (axis,) = axes
    if shape[0] != 1 or math.prod(middle[:axis]) != 1:
        return none, f"axes before axis {axis} of {list(middle)} are longer than 1"
    pixels, run = shape[2] * shape[3], math.prod(middle[axis + 1 :])
    edges = [edge * run for edge in (starts[0], ends[0])]
    if any(edge % pixels for edge in edges):
        return none, f"elements {edges[0]} to {edges[1]} are no whole channels of {list(shape)}"
    return (edges[0] // pixels, edges[1] // pixels), ""
