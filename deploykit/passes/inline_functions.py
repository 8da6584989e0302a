"""Functions that came with the model are replaced by their bodies.

Exporters write modules as ONNX functions, and a fused stage that was saved holds functions of
ours; our own passes look at primitive ops, and make their own functions again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from deploykit.passes.base import Findings, Pass, PassResult

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class InlineFunctions(Pass):
    """See the module's docstring."""

    ensures: ClassVar[frozenset[str]] = frozenset({"no_functions"})
    breaks: ClassVar[frozenset[str]] = frozenset({"constants_folded", "no_dead_code"})

    def apply(self, model: ir.Model) -> PassResult:
        """Inline every function, nested ones too."""
        findings = Findings(self.name)
        if model.functions:
            from onnx_ir.passes.common import InlinePass

            for domain, name, _ in list(model.functions):
                findings.matched(f"{domain}::{name}", "function > its body")
            InlinePass()(model)
            model.functions.clear()
            used = {node.domain for node in model.graph.all_nodes()} | {""}
            for domain in [d for d in model.opset_imports if d not in used]:
                del model.opset_imports[domain]
        return findings.result()
