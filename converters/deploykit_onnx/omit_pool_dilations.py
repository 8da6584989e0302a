"""AveragePool without its ``dilations`` attribute, where that says what holds without it.

AveragePool<dilations = (1, 1)>(x)  >  AveragePool(x)

ONNX Runtime's QLinearAveragePool, which an AveragePool between Q and DQ nodes becomes, refuses a
model that has the attribute. In the canonical set it is never another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from deploykit.passes.base import Findings, Pass, PassResult

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class OmitPoolDilations(Pass):
    """See the module's docstring."""

    ensures: ClassVar[frozenset[str]] = frozenset({"no_pool_dilations"})

    def apply(self, model: ir.Model) -> PassResult:
        """Rewrite in place."""
        findings = Findings(self.name)
        for node in model.graph:
            if node.domain or node.op_type != "AveragePool":
                continue
            dilations = node.attributes.get_ints("dilations", ())
            if not dilations:
                continue
            if any(d != 1 for d in dilations):
                findings.skipped(node, f"dilations {list(dilations)}")
                continue
            del node.attributes["dilations"]
            findings.matched(node, "dilations of ones > none")
        return findings.result()
