"""HardSigmoid in ops that delegates take, its affine part folded into the layer before it.

    HardSigmoid(x) = clip(alpha * x + beta, 0, 1)

Form ``saturation``, for int8:

1.  The producer is a Conv or Gemm with constant weights and this one reader: weights and bias
    become alpha * W and alpha * b + beta, and a Clip to 0..1 follows. In int8, with scale 1/255
    and zero point -128, that clip is the saturation of the layer's own output: no op is left.
2.  Otherwise: Mul(x, alpha), Add(beta), Clip to 0..1.

Form ``relu6``, for float, where a clip to 0..1 costs a partition and one to 0..6 is free:

3.  The producer is as in 1: 6 * alpha * W and 6 * (alpha * b + beta), Clip to 0..6. The factor
    1/6 is left to the weights of the layers that read it (`deploykit_tflite.absorb_factor`), which
    is how every squeeze-and-excite ends; where others read it, it is a Mul.
4.  Otherwise nothing: the lowering writes the same in ADD, RELU6 and MUL.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from deploykit.graph.editing import GraphEditor, set_inputs
from deploykit.graph.node_fields import needed_value, shape_of
from deploykit.graph.ops import LINEAR_OPS
from deploykit.graph.reading import constant_array, read_float, read_int
from deploykit.passes.base import Findings, Pass, PassResult
from deploykit_tflite.absorb_factor import find_factor_readers, leave_factor

if TYPE_CHECKING:
    import onnx_ir as ir

#: A transposed convolution before a gate is in no network that we know.
_LINEAR = LINEAR_OPS - {"ConvTranspose"}


@dataclass(frozen=True)
class RewriteHardSigmoid(Pass):
    """Write every HardSigmoid as a clip; see the module's docstring for the forms."""

    form: Literal["saturation", "relu6"] = "saturation"
    ensures: ClassVar[frozenset[str]] = frozenset({"no_hard_sigmoid_behind_linear"})

    def apply(self, model: ir.Model) -> PassResult:
        """Rewrite in place; the output keeps its name, the layer's own output gets a new one."""
        findings = Findings(self.name)
        editor = GraphEditor(model.graph)
        for node in list(model.graph):
            if node.op_type != "HardSigmoid" or node.domain:
                continue
            producer, why = _linear_producer(node)
            if producer is not None:
                self._fold(editor, node, producer)
                findings.matched(node, f"folded into {producer.op_type} '{producer.name}'")
            elif self.form == "saturation":
                _write_out(editor, node)
                findings.matched(node, f"written as Mul, Add and Clip: {why}")
            else:
                findings.skipped(node, why)
        return findings.result()

    def _fold(self, editor: GraphEditor, node: ir.Node, producer: ir.Node) -> None:
        alpha, beta = _coefficients(node)
        top = 6.0 if self.form == "relu6" else 1.0
        factor = top * alpha
        if abs(factor - 1) < 1e-6:
            factor = 1.0  # alpha is 1/6 in float32: do not round every weight for that
        weights, bias = constant_array(producer.inputs[1]), None
        assert weights is not None
        if len(producer.inputs) > 2:
            bias = constant_array(producer.inputs[2])
        transposed = producer.op_type == "Conv" or read_int(producer, "transB", 0) == 1
        units = weights.shape[0 if transposed else 1]
        offset = np.zeros(units, np.float64) if bias is None else bias.astype(np.float64)
        y = node.outputs[0]
        name, shape = y.name or "hard_sigmoid", shape_of(y)
        kernel = needed_value(producer, 1)
        if factor != 1.0:
            scaled = (weights.astype(np.float64) * factor).astype(np.float32)
            kernel = editor.constant(f"{kernel.name}.scaled", scaled)
        new_bias = (offset.reshape(-1) * factor + top * beta).astype(np.float32)
        set_inputs(
            producer,
            [producer.inputs[0], kernel, editor.constant(f"{name}.bias", new_bias)],
        )
        # It holds other numbers than before: it must not keep the name of the old ones.
        producer.outputs[0].name = f"{name}.unclipped"
        bounds = [
            editor.constant(f"{name}.low", np.asarray(0.0, np.float32)),
            editor.constant(f"{name}.high", np.asarray(top, np.float32)),
        ]
        result = editor.node(
            "Clip", [producer.outputs[0], *bounds], shape, like=node, name=f"{name}.clipped"
        )
        readers = find_factor_readers(y)
        if top != 1.0 and not readers.reason:
            leave_factor(result, name, 1 / top, readers, editor)
            y.replace_all_uses_with(result)
            editor.remove_if_unread(node)
            return
        if top != 1.0:
            inverse = editor.constant(f"{name}.inverse", np.asarray(1 / top, np.float32))
            result = editor.node("Mul", [result, inverse], shape, like=node, name=f"{name}.gate")
        editor.take_over(y, result)
        editor.remove_if_unread(node)


def _coefficients(node: ir.Node) -> tuple[float, float]:
    return read_float(node, "alpha", 0.2), read_float(node, "beta", 0.5)


def _linear_producer(node: ir.Node) -> tuple[ir.Node | None, str]:
    x = needed_value(node, 0)
    producer = x.producer()
    if producer is None or producer.domain or producer.op_type not in _LINEAR:
        return None, "its input does not come from a Conv or Gemm"
    if x.is_graph_output() or len(x.uses()) != 1:
        return None, f"'{x.name}' has other readers"
    constants = [v for v in producer.inputs[1:] if v is not None]
    if any(constant_array(v) is None for v in constants):
        return None, "the weights or the bias before it are computed"
    return producer, ""


def _write_out(editor: GraphEditor, node: ir.Node) -> None:
    alpha, beta = _coefficients(node)
    x, y = needed_value(node, 0), node.outputs[0]
    name, shape = y.name or "hard_sigmoid", shape_of(y)

    def scalar(wish: str, number: float) -> ir.Value:
        return editor.constant(f"{name}.{wish}", np.asarray(number, dtype=np.float32))

    scaled = editor.node(
        "Mul", [x, scalar("alpha", alpha)], shape, like=node, name=f"{name}.scaled"
    )
    shifted = editor.node(
        "Add", [scaled, scalar("beta", beta)], shape, like=node, name=f"{name}.shifted"
    )
    bounds = [scalar("low", 0.0), scalar("high", 1.0)]
    clipped = editor.node("Clip", [shifted, *bounds], shape, like=node, name=f"{name}.clipped")
    editor.take_over(y, clipped)
    editor.remove_if_unread(node)
