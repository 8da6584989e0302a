"""Canonical form: every op in its one spelling, as `deploykit.graph.ops` lists them.

Every node meets the rule of its op once, in the graph's order; the rules stand in families:

1. `canonicalize_convolutions`: Conv, ConvTranspose.
2. `canonicalize_pools`: MaxPool, AveragePool, GlobalAveragePool, GlobalMaxPool, reductions.
3. `canonicalize_linear`: Gemm, MatMul.
4. `canonicalize_elementwise`: arithmetic, bounds, activations.
5. `canonicalize_shapes`: Reshape and its kin, Transpose, Concat, Split, Slice, Pad, Expand.
6. `canonicalize_gather`: Gather, GatherND.
7. `canonicalize_resize`: Resize.
8. `canonicalize_normalization`: LayerNormalization and its kin, norms.
9. `canonicalize_selection`: Where, CastLike.

A node of another op stays: the note says so, and a target that cannot lower it lists it together
with all others. Shapes are known here, so each rule computes with numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from deploykit.graph.editing import GraphEditor
from deploykit.graph.ops import QDQ_OPS, is_canonical
from deploykit.passes import (
    canonicalize_convolutions,
    canonicalize_elementwise,
    canonicalize_gather,
    canonicalize_linear,
    canonicalize_normalization,
    canonicalize_pools,
    canonicalize_resize,
    canonicalize_selection,
    canonicalize_shapes,
)
from deploykit.passes.base import Findings, Pass, PassResult
from deploykit.passes.canonical_rule import RULES

if TYPE_CHECKING:
    import onnx_ir as ir

#: The families, imported so that their rules are registered.
FAMILIES = (
    canonicalize_convolutions,
    canonicalize_elementwise,
    canonicalize_gather,
    canonicalize_linear,
    canonicalize_normalization,
    canonicalize_pools,
    canonicalize_resize,
    canonicalize_selection,
    canonicalize_shapes,
)

#: Not canonical, but removed by the passes that follow.
_REMOVED_LATER = frozenset({"BatchNormalization", "Identity", "Dropout", "Cast", "Erf"})


@dataclass(frozen=True)
class Canonicalize(Pass):
    """See the module's docstring."""

    requires: ClassVar[frozenset[str]] = frozenset({"static_shapes", "no_functions"})
    ensures: ClassVar[frozenset[str]] = frozenset({"canonical"})
    breaks: ClassVar[frozenset[str]] = frozenset({"no_dead_code"})

    def apply(self, model: ir.Model) -> PassResult:
        """Give every node its canonical spelling."""
        findings = Findings(self.name)
        editor = GraphEditor(model.graph)
        for node in model.graph:
            rule = RULES.get(node.op_type) if node.domain == "" else None
            if rule is not None:
                rule(node, editor, findings)
            elif not (
                is_canonical(node.domain, node.op_type)
                or node.op_type in _REMOVED_LATER
                or node.op_type in QDQ_OPS
            ):
                op = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
                findings.skipped(node, f"{op} is outside of the canonical set")
        return findings.result()
