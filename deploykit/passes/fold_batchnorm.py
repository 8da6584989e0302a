"""BatchNormalization into the linear op before it.

With ``scale = gamma / sqrt(variance + epsilon)`` and ``shift = beta - mean scale`` (Ioffe and
Szegedy 2015, at inference):

1. Behind Conv (grouped and depthwise too), ConvTranspose or Gemm, that nothing else reads: into its
   weights and bias (`deploykit.passes.scale_outputs`).
2. Behind anything else, or where a reason below stands: Mul by ``scale`` and Add of ``shift``, per
   channel, so that no BatchNormalization is left.
3. In training mode the statistics are the batch's own: no constant can stand for them. The same
   where a parameter is computed. The node stays, and no target will take it.

Reasons for 2: the output of the linear op has several readers or is an output of the graph; its
weights or its bias are not constant; there is no linear op.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from deploykit.graph.editing import GraphEditor
from deploykit.graph.ops import LINEAR_OPS
from deploykit.graph.read_qdq import real_constant
from deploykit.graph.reading import (
    is_op,
    known_shape,
    producer_of,
    read_float,
    read_int,
    why_not_private,
)
from deploykit.passes.base import Findings, Pass, PassResult
from deploykit.passes.scale_outputs import scale_outputs, why_not_foldable
from deploykit.tensors import Array

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class FoldBatchnorm(Pass):
    """See the module's docstring."""

    requires: ClassVar[frozenset[str]] = frozenset({"canonical", "static_shapes"})
    ensures: ClassVar[frozenset[str]] = frozenset({"no_batchnorm"})
    breaks: ClassVar[frozenset[str]] = frozenset({"no_dead_code"})

    def apply(self, model: ir.Model) -> PassResult:
        """Fold or rewrite every BatchNormalization, in the graph's order."""
        findings = Findings(self.name)
        editor = GraphEditor(model.graph)
        for node in model.graph:
            if is_op(node, "BatchNormalization"):
                _rewrite(node, editor, findings)
        return findings.result()


def _rewrite(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    if read_int(node, "training_mode", 0) or any(o.uses() for o in node.outputs[1:]):
        findings.skipped(node, "it is in training mode: export the model in evaluation mode")
        return
    affine = affine_of(node)
    if affine is None:
        findings.skipped(node, "its parameters are not constant")
        return
    scale, shift = affine
    linear = producer_of(node.inputs[0], *LINEAR_OPS)
    reason = _why_not(node, linear)
    if linear is None or reason:
        findings.skipped(node, f"Mul and Add instead: {reason}")
        findings.changed = True
        _write_affine(node, scale, shift, editor)
        return
    findings.matched(node, f"into the {linear.op_type} before it")
    scale_outputs(linear, scale, shift, editor)
    editor.take_over(node.outputs[0], linear.outputs[0])
    editor.graph.remove(node, safe=True)


def affine_of(node: ir.Node) -> tuple[Array, Array] | None:
    """Scale and shift of a BatchNormalization, float64, one a channel; None if computed.

    Parameters may be integers behind a DequantizeLinear, as some quantizers write them.
    """
    arrays = [real_constant(value) for value in node.inputs[1:5]]
    if len(arrays) != 4 or any(array is None for array in arrays):
        return None
    gamma, beta, mean, variance = (np.asarray(a, dtype=np.float64) for a in arrays)
    scale = gamma / np.sqrt(variance + read_float(node, "epsilon", 1e-5))
    return scale, beta - mean * scale


def _why_not(node: ir.Node, linear: ir.Node | None) -> str:
    value = node.inputs[0]
    if linear is None or value is None:
        producer = producer_of(value)
        before = producer.op_type if producer is not None else "an input of the graph"
        return f"there is no linear op before it, but {before}"
    return why_not_foldable(linear) or why_not_private(value)


def _write_affine(node: ir.Node, scale: Array, shift: Array, editor: GraphEditor) -> None:
    value, output = node.inputs[0], node.outputs[0]
    shape = known_shape(output)
    spread = (-1, *([1] * (len(shape) - 2)))
    kind = output.dtype.numpy() if output.dtype is not None else np.float32
    factor = editor.constant(f"{output.name}.scale", scale.astype(kind).reshape(spread))
    offset = editor.constant(f"{output.name}.shift", shift.astype(kind).reshape(spread))
    scaled = editor.node("Mul", [value, factor], shape, like=node)
    shifted = editor.node("Add", [scaled, offset], shape, like=node)
    editor.take_over(output, shifted)
    editor.graph.remove(node, safe=True)
