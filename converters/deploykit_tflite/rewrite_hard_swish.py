"""HardSwish in ops that int8 delegates take.

    HardSwish(x) = x * relu6(x + 3) / 6  >  Mul(Mul(x, 1/6), Clip(Add(x, 3), 0, 6))

(Howard et al., "Searching for MobileNetV3", 2019.) Delegates have no int8 HARD_SWISH: each one left
in the graph costs a partition. The three ops here are all taken, and the clip is the fused
activation of the addition.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from deploykit.graph.editing import GraphEditor
from deploykit.passes.base import Findings, Pass, PassResult
from deploykit_tflite.node_fields import input_value, static_shape

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class RewriteHardSwish(Pass):
    """Write every HardSwish out in Mul, Add and Clip."""

    ensures: ClassVar[frozenset[str]] = frozenset({"no_hard_swish"})

    def apply(self, model: ir.Model) -> PassResult:
        """Rewrite in place; the output keeps its name."""
        findings = Findings(self.name)
        editor = GraphEditor(model.graph)
        for node in list(model.graph):
            if node.op_type != "HardSwish" or node.domain:
                continue
            x, y = input_value(node, 0), node.outputs[0]
            shape = static_shape(y)
            name = y.name or "hard_swish"

            def scalar(wish: str, number: float) -> ir.Value:
                return editor.constant(wish, np.asarray(number, dtype=np.float32))

            sixth = editor.node(
                "Mul",
                [x, scalar(f"{name}.one_sixth", 1 / 6)],
                shape,
                like=node,
                name=f"{name}.x_over_6",
            )
            shifted = editor.node(
                "Add", [x, scalar(f"{name}.three", 3.0)], shape, like=node, name=f"{name}.x_plus_3"
            )
            gate = editor.node(
                "Clip",
                [shifted, scalar(f"{name}.zero", 0.0), scalar(f"{name}.six", 6.0)],
                shape,
                like=node,
                name=f"{name}.gate",
            )
            product = editor.node("Mul", [sixth, gate], shape, like=node, name=f"{name}.product")
            editor.take_over(y, product)
            editor.remove_if_unread(node)
            findings.matched(name, "written as (x / 6) * relu6(x + 3)")
        return findings.result()
