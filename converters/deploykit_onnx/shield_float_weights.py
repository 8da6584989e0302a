"""Float layers that read integers keep their float weights in ONNX Runtime.

Conv(DequantizeLinear(q), w, b)  →  Conv(Mul(DequantizeLinear(q), 2), w / 2, b)

ONNX Runtime takes a layer with float weights behind a DequantizeLinear for one that was forgotten,
and rounds its weights to int8 with one scale for all channels (its graph transformer
WeightBiasQuantization, at every level of optimization above none). With an operator between the two
it does not. Doubling and halving are exact in floats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from deploykit.graph.editing import GraphEditor, set_input
from deploykit.graph.ops import LINEAR_OPS
from deploykit.graph.read_qdq import is_dequantize
from deploykit.graph.reading import constant_array, is_op, static_shape
from deploykit.passes.base import Findings, Pass, PassResult

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class ShieldFloatWeights(Pass):
    """See the module's docstring."""

    ensures: ClassVar[frozenset[str]] = frozenset({"shielded_float_weights"})

    def apply(self, model: ir.Model) -> PassResult:
        """Rewrite in place."""
        findings = Findings(self.name)
        editor = GraphEditor(model.graph)
        for node in list(model.graph):
            if not is_op(node, *LINEAR_OPS):
                continue
            data, weights = node.inputs[0], constant_array(node.inputs[1])
            maker = data.producer() if data is not None else None
            if weights is None or weights.dtype != np.float32 or maker is None:
                continue
            scale = constant_array(maker.inputs[1]) if is_dequantize(maker) else None
            if scale is None or scale.size != 1:
                continue
            assert data is not None
            two = editor.constant("two", np.array(2.0, np.float32))
            shape = static_shape(data) or ()
            doubled = editor.node("Mul", [data, two], shape, like=node)
            name = node.inputs[1].name if node.inputs[1] is not None else None
            set_input(node, 0, doubled)
            set_input(node, 1, editor.constant(f"{name}.half", weights * np.float32(0.5)))
            findings.matched(node, "its weights would be rounded to int8 → behind a Mul")
        return findings.result()
