"""BatchNormalization of a model that came quantized, into integers.

With ``scale = gamma / sqrt(variance + epsilon)`` and ``shift = beta - mean scale`` (Ioffe and
Szegedy 2015, at inference), and weights ``W = s (q - z)`` of integers q:

1. Behind a Conv, ConvTranspose or Gemm that nothing else reads, with nothing rounded between, whose
   weights are integers behind a DequantizeLinear: ``scale W = (s |scale|) (q - z)``, the integers
   of a channel whose scale is negative mirrored at z. So the integers stay (a channel of scale 0
   becomes zeros), each channel has a separate scale, and the bias is a float,
   ``scale b + shift``. This is exact.
2. Behind a DequantizeLinear of computed integers (the result before it is rounded): a depthwise
   Conv of 1 x 1 with weights ``127 sign(scale)`` of scale ``|scale| / 127`` and bias ``shift``.
   This is exact too, and it is a layer that every target runs in integers.

What fits neither is left to `deploykit.passes.fold_batchnorm`: a value that is no image, integers
that cannot be mirrored (-128 of int8), a linear op with several readers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from deploykit.graph.editing import GraphEditor, set_inputs
from deploykit.graph.ops import LINEAR_OPS
from deploykit.graph.read_qdq import DEQUANTIZE, integers_of, is_dequantize, real_constant
from deploykit.graph.reading import (
    constant_array,
    input_at,
    is_op,
    known_shape,
    producer_of,
    read_int,
    why_not_private,
)
from deploykit.passes.base import Findings, Pass, PassResult
from deploykit.passes.fold_batchnorm import affine_of
from deploykit.tensors import Array, QuantParams

if TYPE_CHECKING:
    import onnx_ir as ir

_LARGEST = 127


@dataclass(frozen=True)
class FoldQuantizedBatchnorm(Pass):
    """See the module's docstring."""

    requires: ClassVar[frozenset[str]] = frozenset({"canonical", "static_shapes"})
    breaks: ClassVar[frozenset[str]] = frozenset({"no_dead_code"})

    def apply(self, model: ir.Model) -> PassResult:
        """Rewrite every BatchNormalization that can be, in the graph's order."""
        findings = Findings(self.name)
        editor = GraphEditor(model.graph)
        for node in list(model.graph):
            if is_op(node, "BatchNormalization"):
                _rewrite(node, editor, findings)
        return findings.result()


def _rewrite(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    value = node.inputs[0]
    producer = value.producer() if value is not None else None
    affine = affine_of(node)
    if value is None or producer is None or affine is None:
        return
    if is_dequantize(producer) and constant_array(producer.inputs[0]) is None:
        if len(known_shape(value)) != 4:
            findings.skipped(node, "no depthwise convolution of a value that is no image")
            return
        _write_depthwise(node, affine, editor)
        findings.matched(node, "a depthwise Conv of 1 x 1 in integers")
        return
    linear = producer_of(value, *LINEAR_OPS)
    held = integers_of(linear.inputs[1]) if linear is not None else None
    if linear is None or held is None:
        return
    reason = why_not_private(value) or _fold(linear, held, affine, editor)
    if reason:
        findings.skipped(node, reason)
        return
    editor.take_over(node.outputs[0], linear.outputs[0])
    editor.graph.remove(node, safe=True)
    findings.matched(node, f"into the integer weights of the {linear.op_type} before it")


def _fold(
    linear: ir.Node,
    held: tuple[Array, QuantParams],
    affine: tuple[Array, Array],
    editor: GraphEditor,
) -> str:
    """Case 1; what stands in the way, empty if it was done."""
    (integers, params), (scale, shift) = held, affine
    axis = 1 if linear.op_type == "ConvTranspose" else 0
    if linear.op_type == "ConvTranspose" and read_int(linear, "group", 1) != 1:
        return "the groups of a ConvTranspose share their scales"
    bias = input_at(linear, 2)
    old = np.zeros(len(scale)) if bias is None else real_constant(bias)
    if old is None:
        return "the bias is computed"
    if params.axis not in (None, axis):
        return f"the weights' scales are along axis {params.axis}"
    along = tuple(-1 if a == axis else 1 for a in range(integers.ndim))
    zeros = np.broadcast_to(np.asarray(params.zero_point), scale.shape).reshape(along)
    centred = integers.astype(np.int64) - zeros
    mirrored = centred * np.sign(scale).astype(np.int64).reshape(along) + zeros
    info = np.iinfo(params.dtype)
    if mirrored.min() < info.min or mirrored.max() > info.max:
        return f"its scale is negative and its weights hold {info.min}, which cannot be mirrored"
    # A channel of zeros keeps the scale that it had.
    factor = np.where(scale == 0, 1.0, np.abs(scale))
    scales = (np.broadcast_to(np.asarray(params.scale), scale.shape) * factor).astype(np.float32)
    name = linear.outputs[0].name or linear.op_type
    weights = _dequantized(
        editor,
        linear,
        f"{name}.weight",
        mirrored.astype(params.dtype),
        scales,
        zeros.reshape(-1).astype(params.dtype),
        axis,
    )
    new_bias = (np.asarray(old, np.float64).reshape(-1) * scale + shift).astype(np.float32)
    set_inputs(linear, [linear.inputs[0], weights, editor.constant(f"{name}.bias", new_bias)])
    return ""


def _write_depthwise(node: ir.Node, affine: tuple[Array, Array], editor: GraphEditor) -> None:
    """Case 2."""
    scale, shift = affine
    output, count = node.outputs[0], len(affine[0])
    name = output.name or "batchnorm"
    integers = (_LARGEST * np.sign(scale)).astype(np.int8).reshape(-1, 1, 1, 1)
    scales = np.where(scale == 0, 1.0, np.abs(scale) / _LARGEST).astype(np.float32)
    zeros = np.zeros(count, np.int8)
    weights = _dequantized(editor, node, f"{name}.weight", integers, scales, zeros, 0)
    made = editor.node(
        "Conv",
        [node.inputs[0], weights, editor.constant(f"{name}.bias", shift.astype(np.float32))],
        known_shape(output),
        like=node,
        attributes={
            "kernel_shape": (1, 1),
            "strides": (1, 1),
            "dilations": (1, 1),
            "pads": (0, 0, 0, 0),
            "group": count,
        },
    )
    editor.take_over(output, made)
    editor.graph.remove(node, safe=True)


def _dequantized(
    editor: GraphEditor,
    before: ir.Node,
    name: str,
    integers: Array,
    scales: Array,
    zeros: Array,
    axis: int,
) -> ir.Value:
    """Constant integers behind a DequantizeLinear, with one scale a channel."""
    constants = [
        editor.constant(f"{name}_quantized", integers),
        editor.constant(f"{name}_scale", scales),
        editor.constant(f"{name}_zero_point", zeros),
    ]
    return editor.node(
        DEQUANTIZE,
        constants,
        integers.shape,
        like=before,
        name=name,
        attributes={"axis": axis},
    )
