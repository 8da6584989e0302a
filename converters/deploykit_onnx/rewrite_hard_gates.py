"""HardSigmoid, HardSwish and Silu in ops that ONNX Runtime has integer kernels for.

1.  HardSigmoid(x) = clip(alpha * x + beta, 0, 1)  >  Clip(Add(Mul(x, alpha), beta), 0, 1)
2.  HardSwish(x) = x * HardSigmoid(x; 1/6, 1/2)    >  Mul(x, Clip(Add(Mul(x, 1/6), 1/2), 0, 1))
    (Howard et al., "Searching for MobileNetV3", 2019)

In integers the clip is the saturation of the addition's own output: no op of its own is left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from deploykit.graph.editing import GraphEditor
from deploykit.graph.reading import is_op, known_shape
from deploykit.passes.base import Findings, Pass, PassResult

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class RewriteHardGates(Pass):
    """See the module's docstring."""

    ensures: ClassVar[frozenset[str]] = frozenset({"no_hard_gates"})

    def apply(self, model: ir.Model) -> PassResult:
        """Rewrite in place; the output keeps its name."""
        findings = Findings(self.name)
        editor = GraphEditor(model.graph)
        for node in list(model.graph):
            if not is_op(node, "HardSigmoid", "HardSwish"):
                continue
            x, y = node.inputs[0], node.outputs[0]
            assert x is not None
            swish = node.op_type == "HardSwish"
            alpha = 1 / 6 if swish else node.attributes.get_float("alpha", 0.2)
            beta = 0.5 if swish else node.attributes.get_float("beta", 0.5)
            gate = _write_gate(editor, node, x, (alpha, beta))
            if swish:
                shape = known_shape(y)
                gate = editor.node("Mul", [x, gate], shape, like=node, name=f"{y.name}.gated")
            editor.take_over(y, gate)
            editor.remove_if_unread(node)
            findings.matched(node, f"{node.op_type} > Mul, Add and Clip")
        return findings.result()


def _write_gate(
    editor: GraphEditor, node: ir.Node, x: ir.Value, line: tuple[float, float]
) -> ir.Value:
    y = node.outputs[0]
    name, shape = y.name or node.op_type, known_shape(y)

    def scalar(wish: str, number: float) -> ir.Value:
        return editor.constant(f"{name}.{wish}", np.asarray(number, dtype=np.float32))

    scaled = editor.node(
        "Mul", [x, scalar("alpha", line[0])], shape, like=node, name=f"{name}.scaled"
    )
    shifted = editor.node(
        "Add", [scaled, scalar("beta", line[1])], shape, like=node, name=f"{name}.shifted"
    )
    bounds = [scalar("low", 0.0), scalar("high", 1.0)]
    return editor.node("Clip", [shifted, *bounds], shape, like=node, name=f"{name}.gate")
