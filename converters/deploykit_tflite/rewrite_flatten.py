"""A mean over all pixels that is flattened at once is computed without the two axes.

    Reshape(ReduceMean(x, axes = (2, 3), keepdims = 1), (N, C))  >  ReduceMean(x, keepdims = 0)

Reasons: other nodes read the mean with its axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from deploykit.graph.editing import GraphEditor, set_attributes
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
class RewriteFlatten(Pass):
    """See the module's docstring."""

    ensures: ClassVar[frozenset[str]] = frozenset({"means_flattened"})

    def apply(self, model: ir.Model) -> PassResult:
        """Rewrite in place; the flattened value keeps its name."""
        findings = Findings(self.name)
        editor = GraphEditor(model.graph)
        for node in list(model.graph):
            mean = producer_of(node.inputs[0], "ReduceMean") if is_op(node, "Reshape") else None
            if mean is None or constant_ints(input_at(mean, 1)) != (2, 3):
                continue
            pooled, flat = mean.outputs[0], node.outputs[0]
            if read_int(mean, "keepdims", 1) != 1 or known_shape(flat) != known_shape(pooled)[:2]:
                continue
            reason = why_not_private(pooled)
            if reason:
                findings.skipped(node, reason)
                continue
            set_attributes(mean, keepdims=0)
            editor.set_shape(pooled, known_shape(flat))
            editor.take_over(flat, pooled)
            editor.remove_if_unread(node)
            findings.matched(mean, "ReduceMean and Reshape > ReduceMean without its axes")
        return findings.result()
