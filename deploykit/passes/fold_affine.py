"""A constant Mul or Add, one number a channel, into the linear op before it.

1. ``Mul(L(x), s)``: into the weights and the bias (`deploykit.passes.scale_outputs`, shift 0).
2. ``Add(L(x), t)``: into the bias (scale 1); so a MatMul with an Add becomes one Gemm.

The constant has to be one number, or one a channel (axis 1), and not broadcast the output. As for
BatchNormalization, nothing else may read the output of the linear op.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from deploykit.graph.editing import GraphEditor
from deploykit.graph.ops import LINEAR_OPS
from deploykit.graph.reading import (
    constant_array,
    is_op,
    known_shape,
    producer_of,
    why_not_private,
)
from deploykit.passes.base import Findings, Pass, PassResult
from deploykit.passes.scale_outputs import scale_outputs, why_not_foldable
from deploykit.tensors import Array

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class FoldAffine(Pass):
    """See the module's docstring."""

    requires: ClassVar[frozenset[str]] = frozenset({"canonical", "static_shapes", "no_batchnorm"})
    ensures: ClassVar[frozenset[str]] = frozenset({"affine_folded"})
    breaks: ClassVar[frozenset[str]] = frozenset({"no_dead_code"})

    def apply(self, model: ir.Model) -> PassResult:
        """Fold every constant Mul and Add that can be, in the graph's order."""
        findings = Findings(self.name)
        editor = GraphEditor(model.graph)
        for node in model.graph:
            if is_op(node, "Mul", "Add"):
                _fold(node, editor, findings)
        return findings.result()


def _fold(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    value = node.inputs[0]
    linear = producer_of(value, *LINEAR_OPS)
    constant = constant_array(node.inputs[1])
    if linear is None or value is None or constant is None:
        return
    channels = per_channel(constant, known_shape(value), known_shape(node.outputs[0]))
    if channels is None:
        findings.skipped(node, f"a constant of shape {list(constant.shape)} is not one a channel")
        return
    reason = why_not_foldable(linear) or why_not_private(value)
    if reason:
        findings.skipped(node, reason)
        return
    findings.matched(node, f"{node.op_type} into the {linear.op_type} before it")
    if node.op_type == "Mul":
        scale_outputs(linear, channels, np.zeros_like(channels), editor)
    else:
        scale_outputs(linear, np.ones_like(channels), channels, editor)
    editor.take_over(node.outputs[0], linear.outputs[0])
    editor.graph.remove(node, safe=True)


def per_channel(constant: Array, shape: tuple[int, ...], result: tuple[int, ...]) -> Array | None:
    """A constant operand as float64, one number for each channel (axis 1) of a value.

    Args:
        constant: The operand.
        shape: Of the value.
        result: Of the node's output.

    Returns:
        Shape (C,), or None if the operand differs along another axis or broadcasts the value.
    """
    if shape != result or len(shape) < 2:
        return None
    aligned = (1,) * (len(shape) - constant.ndim) + constant.shape
    if any(d != 1 for i, d in enumerate(aligned) if i != 1):
        return None
    flat = constant.reshape(-1).astype(np.float64)
    return np.broadcast_to(flat, (shape[1],)).copy()
