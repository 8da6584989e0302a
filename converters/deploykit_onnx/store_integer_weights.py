"""Integers where a model stores reals and rounds them: a quarter of the bytes.

DequantizeLinear(QuantizeLinear(w))  →  DequantizeLinear(integers of w)

Some quantizers (NNCF, AIMET) export weights in this form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from deploykit.graph.editing import GraphEditor
from deploykit.graph.read_qdq import is_quantize, read_params
from deploykit.graph.reading import constant_array
from deploykit.passes.base import Findings, Pass, PassResult

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class StoreIntegerWeights(Pass):
    """See the module's docstring."""

    ensures: ClassVar[frozenset[str]] = frozenset({"integer_weights"})

    def apply(self, model: ir.Model) -> PassResult:
        """Rewrite in place."""
        findings = Findings(self.name)
        editor = GraphEditor(model.graph)
        for node in model.graph:
            reals = constant_array(node.inputs[0]) if is_quantize(node) else None
            if reals is None or node.outputs[0].is_graph_output():
                continue
            findings.matched(node, "a rounded constant → its integers")
            integers = read_params(node).quantize(reals)
            editor.take_over(node.outputs[0], editor.constant("integers", integers))
            model.graph.remove(node, safe=True)
        return findings.result()
