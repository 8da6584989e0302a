"""deploykit::Silu in ops that the int8 specification has: Silu(x) → Mul(x, Sigmoid(x)).

(Elfwing et al., "Sigmoid-Weighted Linear Units", 2018.) The sigmoid's output has the fixed scale
1/256, so both ops need values of their own in the quantized stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from deploykit.graph.editing import GraphEditor
from deploykit.graph.node_fields import needed_value, shape_of
from deploykit.graph.ops import DOMAIN
from deploykit.passes.base import Findings, Pass, PassResult

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class RewriteSilu(Pass):
    """Write every Silu out in Sigmoid and Mul."""

    ensures: ClassVar[frozenset[str]] = frozenset({"no_silu"})

    def apply(self, model: ir.Model) -> PassResult:
        """Rewrite in place; the output keeps its name."""
        findings = Findings(self.name)
        editor = GraphEditor(model.graph)
        for node in list(model.graph):
            if node.op_type != "Silu" or node.domain != DOMAIN:
                continue
            x, y = needed_value(node, 0), node.outputs[0]
            shape = shape_of(y)
            name = y.name or "silu"
            gate = editor.node("Sigmoid", [x], shape, like=node, name=f"{name}.gate")
            product = editor.node("Mul", [x, gate], shape, like=node, name=f"{name}.product")
            editor.take_over(y, product)
            editor.remove_if_unread(node)
            findings.matched(name, "written as x * sigmoid(x)")
        return findings.result()
