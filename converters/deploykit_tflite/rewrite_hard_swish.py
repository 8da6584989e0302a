"""HardSwish in ops that int8 delegates take.

    HardSwish(x) = x * relu6(x + 3) / 6

(Howard et al., "Searching for MobileNetV3", 2019.) Delegates have no int8 HARD_SWISH: each one left
in the graph costs a partition. The ops here are all taken, and the clip is the fused activation of
the addition.

1.  All that is made of it ends in layers with weights: Mul(x, Clip(Add(x, 3), 0, 6)). What is held
    is six times the HardSwish, and the weights behind it are divided by six
    (`deploykit_tflite.absorb_factor`), which costs nothing and rounds nothing: in int8 only their
    scales change.
2.  Otherwise (an addition reads it): Mul(Mul(x, 1/6), Clip(Add(x, 3), 0, 6)).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from deploykit.graph.editing import GraphEditor
from deploykit.graph.node_fields import needed_value, shape_of
from deploykit.passes.base import Findings, Pass, PassResult
from deploykit_tflite.absorb_factor import find_factor_readers, leave_factor

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class RewriteHardSwish(Pass):
    """Write every HardSwish out; see the module's docstring."""

    ensures: ClassVar[frozenset[str]] = frozenset({"no_hard_swish"})

    def apply(self, model: ir.Model) -> PassResult:
        """Rewrite in place; in form 2 the output keeps its name."""
        findings = Findings(self.name)
        editor = GraphEditor(model.graph)
        for node in list(model.graph):
            if node.op_type != "HardSwish" or node.domain:
                continue
            x, y = needed_value(node, 0), node.outputs[0]
            name, shape = y.name or "hard_swish", shape_of(y)
            readers = find_factor_readers(y)
            if not readers.reason:
                wish = f"{name}.times_6"
                product = editor.node("Mul", [x, _gate(editor, node)], shape, like=node, name=wish)
                leave_factor(product, name, 1 / 6, readers, editor)
                y.replace_all_uses_with(product)
                findings.matched(
                    name, "written as x * relu6(x + 3), its sixth in the weights behind"
                )
            else:
                sixth = editor.constant(f"{name}.one_sixth", np.asarray(1 / 6, np.float32))
                inner = editor.node("Mul", [x, sixth], shape, like=node, name=f"{name}.x_over_6")
                gate = _gate(editor, node)
                product = editor.node(
                    "Mul", [inner, gate], shape, like=node, name=f"{name}.product"
                )
                editor.take_over(y, product)
                findings.matched(name, f"written as (x / 6) * relu6(x + 3): {readers.reason}")
            editor.remove_if_unread(node)
        return findings.result()


def _gate(editor: GraphEditor, node: ir.Node) -> ir.Value:
    """Clip(Add(x, 3), 0, 6) before a HardSwish of x."""
    x, y = needed_value(node, 0), node.outputs[0]
    name, shape = y.name or "hard_swish", shape_of(y)
    three, low, high = (
        editor.constant(f"{name}.{wish}", np.asarray(number, np.float32))
        for wish, number in (("three", 3.0), ("zero", 0.0), ("six", 6.0))
    )
    shifted = editor.node("Add", [x, three], shape, like=node, name=f"{name}.x_plus_3")
    return editor.node("Clip", [shifted, low, high], shape, like=node, name=f"{name}.gate")
