"""A zero point for each weight, where several weights share one initializer.

DequantizeLinear(w, s, z), DequantizeLinear(v, t, z)  →  ... z ..., ... z.1 ...

For CPUs whose integer kernels saturate, ONNX Runtime can turn int8 weights into uint8
(`EXACT_INTEGERS`). It writes each weight's new zero point under the old one's name, and refuses a
model in which two weights have the same one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from deploykit.graph.editing import GraphEditor, set_input
from deploykit.graph.read_qdq import is_dequantize
from deploykit.graph.reading import constant_array, input_at, is_constant
from deploykit.passes.base import Findings, Pass, PassResult

if TYPE_CHECKING:
    import onnx_ir as ir

_ZERO_POINT = 2


@dataclass(frozen=True)
class SeparateZeroPoints(Pass):
    """See the module's docstring."""

    ensures: ClassVar[frozenset[str]] = frozenset({"separate_zero_points"})

    def apply(self, model: ir.Model) -> PassResult:
        """Rewrite in place."""
        findings = Findings(self.name)
        editor = GraphEditor(model.graph)
        for node in model.graph:
            zero = input_at(node, _ZERO_POINT)
            if not is_dequantize(node) or not is_constant(node.inputs[0]) or zero is None:
                continue
            array = constant_array(zero)
            if array is None or len(zero.uses()) == 1:
                continue
            set_input(node, _ZERO_POINT, editor.constant(zero.name or "zero_point", array))
            findings.matched(node, "a shared zero point → one for each weight")
        return findings.result()
