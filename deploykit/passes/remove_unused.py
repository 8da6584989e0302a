"""Removal of what nothing reads.

1. A node none of whose outputs is read or is an output of the graph.
2. An initializer that nothing reads.
3. A function that no node calls, and the import of an operator set that no node belongs to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from deploykit.passes.base import Findings, Pass, PassResult

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class RemoveUnused(Pass):
    """See the module's docstring."""

    ensures: ClassVar[frozenset[str]] = frozenset({"no_dead_code"})

    def apply(self, model: ir.Model) -> PassResult:
        """Remove dead nodes from the outputs backwards, then initializers, then functions."""
        findings = Findings(self.name)
        graph = model.graph
        for node in reversed(graph):
            if not any(o.uses() or o.is_graph_output() for o in node.outputs):
                findings.matched(node, f"{node.op_type} that nothing reads")
                graph.remove(node, safe=True)
        unread = [
            name
            for name, value in graph.initializers.items()
            if not value.uses() and not value.is_graph_output()
        ]
        for name in unread:
            del graph.initializers[name]
        if unread:
            findings.matched("initializers", f"{len(unread)} that nothing reads")
        _remove_functions(model, findings)
        return findings.result()


def _remove_functions(model: ir.Model, findings: Findings) -> None:
    if not model.functions and set(model.opset_imports) <= {""}:
        return
    nodes = list(model.graph.all_nodes())
    called = {node.op_identifier() for node in nodes}
    for function in model.functions.values():
        # A function of ours calls none of the others; one that does is kept if its caller is.
        called.update(node.op_identifier() for node in function.all_nodes())
    for key in [key for key in model.functions if key not in called]:
        del model.functions[key]
        findings.matched(f"{key[0]}::{key[1]}", "a function that no node calls")
    domains = {node.domain for node in nodes} | {""}
    domains.update(n.domain for f in model.functions.values() for n in f.all_nodes())
    for domain in [d for d in model.opset_imports if d not in domains]:
        del model.opset_imports[domain]
