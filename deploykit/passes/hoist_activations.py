"""Relu and Clip behind a Concat move before it, where they are part of another op or of no op.

1.  ``act(concat(a, b)) = concat(act(a), act(b))``: an operand that a Conv, Gemm or arithmetic op
    makes gets its activation fused by most targets; one that lies within the bounds already (the
    pooled output of another activation) needs none.

Reasons: no operand would fuse it; the Concat has other readers; another reader of an operand needs
it unclamped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from deploykit.graph.editing import GraphEditor, set_inputs
from deploykit.graph.op_facts import Interval, clamp_of
from deploykit.graph.ops import ACTIVATION_CARRIERS, POOLS
from deploykit.graph.reading import known_shape, producer_of, why_not_private
from deploykit.passes.base import Findings, Pass, PassResult
from deploykit.passes.value_bounds import find_bounds

if TYPE_CHECKING:
    import onnx_ir as ir

#: A pool's result is rounded where its input was: an activation behind it saves nothing there.
_FUSING = ACTIVATION_CARRIERS - POOLS


@dataclass(frozen=True)
class HoistActivations(Pass):
    """See the module's docstring."""

    breaks: ClassVar[frozenset[str]] = frozenset({"no_dead_code"})

    def apply(self, model: ir.Model) -> PassResult:
        """Move every activation that can go; the Concat takes over its output's name."""
        findings = Findings(self.name)
        editor = GraphEditor(model.graph)
        for node in list(model.graph):
            clamp = clamp_of(node)
            concat = producer_of(node.inputs[0], "Concat") if clamp is not None else None
            if concat is None or clamp is None:
                continue
            reason = why_not_private(concat.outputs[0]) or _why_not_operands(concat, clamp)
            if reason:
                findings.skipped(node, reason)
                continue
            _hoist(node, concat, clamp, editor)
            findings.matched(concat, f"{node.op_type} moved before the Concat")
        return findings.result()


def _why_not_operands(concat: ir.Node, clamp: Interval) -> str:
    fuses = False
    for value in dict.fromkeys(concat.inputs):
        if value is None or _lies_within(value, clamp):
            continue
        if producer_of(value, *_FUSING) is None:
            return f"no op that makes '{value.name}' computes an activation along"
        if value.is_graph_output() or any(use.node is not concat for use in value.uses()):
            return f"'{value.name}' has readers that need it without the activation"
        fuses = True
    return "" if fuses or concat.inputs else "nothing to move"


def _lies_within(value: ir.Value, clamp: Interval) -> bool:
    low, high = find_bounds(value)
    return low >= clamp[0] and high <= clamp[1]


def _hoist(node: ir.Node, concat: ir.Node, clamp: Interval, editor: GraphEditor) -> None:
    clamped: dict[ir.Value, ir.Value] = {}
    for value in dict.fromkeys(v for v in concat.inputs if v is not None):
        if _lies_within(value, clamp):
            clamped[value] = value
            continue
        producer = value.producer()
        assert producer is not None
        clamped[value] = editor.node(
            node.op_type,
            [value, *node.inputs[1:]],
            known_shape(value),
            like=producer,
            before=concat,
            name=f"{value.name}.{node.op_type.lower()}",
        )
    set_inputs(concat, [clamped[v] for v in concat.inputs if v is not None])
    editor.take_over(node.outputs[0], concat.outputs[0])
    editor.remove_if_unread(node)
