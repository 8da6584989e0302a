"""Concat, ChannelShuffle, Split → deploykit::ConcatShuffleSplit.

1. ``split(shuffle(concat(a, b)))`` into two halves of the channels, by Split or by two Slices.

Reasons: the Concat has another axis or another number of operands than two, or operands of unequal
channels; a value in between has other readers; the parts are not the two halves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from deploykit.graph.editing import GraphEditor
from deploykit.graph.functions import add_function
from deploykit.graph.ops import DOMAIN
from deploykit.graph.reading import (
    constant_ints,
    input_at,
    is_op,
    known_shape,
    producer_of,
    read_int,
    why_not_private,
)
from deploykit.passes.base import Findings, Pass, PassResult

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class FuseConcatShuffleSplit(Pass):
    """See the module's docstring."""

    requires: ClassVar[frozenset[str]] = frozenset({"shuffles_fused", "static_shapes"})
    ensures: ClassVar[frozenset[str]] = frozenset({"concat_shuffles_fused"})
    breaks: ClassVar[frozenset[str]] = frozenset({"no_dead_code"})

    def apply(self, model: ir.Model) -> PassResult:
        """Fuse at every ChannelShuffle that reads a Concat."""
        findings = Findings(self.name)
        editor = GraphEditor(model.graph)
        for node in model.graph:
            if is_op(node, "ChannelShuffle", domain=DOMAIN):
                _fuse(node, model, editor, findings)
        return findings.result()


def _fuse(shuffle: ir.Node, model: ir.Model, editor: GraphEditor, findings: Findings) -> None:
    concat = producer_of(shuffle.inputs[0], "Concat")
    halves, reason = _halves_of(shuffle)
    reason = _why_not_concat(concat) or reason
    if reason or concat is None:
        findings.skipped(shuffle, reason)
        return
    add_function(model, "ConcatShuffleSplit")
    readers = [use.node for use in shuffle.outputs[0].uses()]
    shape = known_shape(shuffle.outputs[0])
    half = (shape[0], shape[1] // 2, *shape[2:])
    fused = editor.node_with_outputs(
        "ConcatShuffleSplit",
        list(concat.inputs),
        [half, half],
        like=shuffle,
        domain=DOMAIN,
        attributes={"groups": read_int(shuffle, "groups", 1)},
        name=f"{shuffle.outputs[0].name}.half",
    )
    for new, olds in zip(fused, halves, strict=True):
        for index, old in enumerate(olds):
            if index == 0:
                editor.take_over(old, new)
            else:
                old.replace_all_uses_with(new)
    editor.remove_if_unread(*readers, shuffle, concat)
    findings.matched(fused[0].name or "", "Concat, ChannelShuffle, Split > ConcatShuffleSplit")


def _why_not_concat(concat: ir.Node | None) -> str:
    if concat is None:
        return "there is no Concat before it"
    if read_int(concat, "axis", 0) != 1 or len(concat.inputs) != 2:
        return f"the Concat before it has {len(concat.inputs)} operands, not 2 along the channels"
    first, second = (known_shape(value)[1] for value in concat.inputs)
    if first != second:
        return f"the operands of the Concat before it have {first} and {second} channels"
    return why_not_private(concat.outputs[0])


def _halves_of(shuffle: ir.Node) -> tuple[tuple[list[ir.Value], list[ir.Value]], str]:
    # The values that are the first and the second half of the shuffled channels.
    value = shuffle.outputs[0]
    halves: tuple[list[ir.Value], list[ir.Value]] = ([], [])
    if value.is_graph_output():
        return halves, "it gives an output of the graph"
    channels = known_shape(value)[1]
    for use in value.uses():
        spans = _spans(use.node)
        if spans is None:
            return halves, f"{use.node.op_type} reads it as a whole"
        for output, span in zip(use.node.outputs, spans, strict=True):
            if channels % 2 or span not in ((0, channels // 2), (channels // 2, channels)):
                return halves, f"channels {span[0]} to {span[1]} of {channels} are no half"
            halves[0 if span[0] == 0 else 1].append(output)
    if not halves[0] and not halves[1]:
        return halves, "nothing reads it"
    if any(output.is_graph_output() for half in halves for output in half[1:]):
        return halves, "a half has two names that are outputs of the graph"
    return halves, ""


def _spans(node: ir.Node) -> list[tuple[int, int]] | None:
    # The ranges of channels that the outputs of a Split or Slice hold.
    if is_op(node, "Split") and read_int(node, "axis", 0) == 1:
        sizes = constant_ints(input_at(node, 1)) or ()
        return [(sum(sizes[:i]), sum(sizes[: i + 1])) for i in range(len(sizes))]
    if is_op(node, "Slice"):
        starts, ends, axes, steps = (constant_ints(input_at(node, i)) for i in range(1, 5))
        if starts and ends and axes == (1,) and steps == (1,):
            return [(starts[0], ends[0])]
    return None
