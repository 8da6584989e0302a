"""Dynamically quantized ONNX files: the floats that they stand for.

In such a file weights are 8-bit integers, and activations are rounded as it runs, to a scale that
follows from each tensor (``DynamicQuantizeLinear``). That scale is no constant, so no target's
integers can have it. What is read is the network without the rounding of activations: float
layers with the reals of the file's own weights. ``--int8`` then calibrates it as any float model.

1.  ``Mul(Cast(ConvInteger(q, W)), Mul(scale, weight scale))`` with ``q, scale`` from a
    DynamicQuantizeLinear of x: Conv(x, W'). MatMulInteger likewise, also of two such operands.
2.  ONNX Runtime's ``DynamicQuantizeMatMul(x, W, ...)``, and ``MatMulIntegerToFloat``: MatMul, and
    an Add of its bias.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deploykit.graph.editing import GraphEditor
from deploykit.graph.provenance import copy_provenance
from deploykit.graph.reading import constant_array, input_at, is_op, only_reader, producer_of
from deploykit.passes.base import Findings
from deploykit.tensors import Array

if TYPE_CHECKING:
    import onnx_ir as ir

_DYNAMIC = "DynamicQuantizeLinear"
_MICROSOFT = "com.microsoft"
_FLOAT_OPS = {"ConvInteger": "Conv", "MatMulInteger": "MatMul"}


def remove_dynamic_quantization(graph: ir.Graph, findings: Findings) -> None:
    """Cases 1 and 2, in place."""
    editor = GraphEditor(graph)
    for node in list(graph):
        if is_op(node, *_FLOAT_OPS):
            _expand_integers(node, editor, findings)
        elif is_op(node, "DynamicQuantizeMatMul", domain=_MICROSOFT):
            weights = _reals(*(input_at(node, i) for i in (1, 2, 3)))
            _to_matmul(node, node.inputs[0], weights, input_at(node, 4), editor, findings)
        elif is_op(node, "MatMulIntegerToFloat", domain=_MICROSOFT):
            source = _source_of(node.inputs[0], node.inputs[2])
            weights = _reals(*(input_at(node, i) for i in (1, 3, 5)))
            _to_matmul(node, source, weights, input_at(node, 6), editor, findings)
    editor.remove_if_unread(*[n for n in reversed(list(graph)) if is_op(n, _DYNAMIC, "Mul")])


def _expand_integers(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    cast = only_reader(node.outputs[0])
    scaled = only_reader(cast.outputs[0]) if cast is not None and is_op(cast, "Cast") else None
    if cast is None or scaled is None or not is_op(scaled, "Mul"):
        findings.skipped(node, "its result is not scaled right behind it")
        return
    others = [v for v in scaled.inputs if v is not cast.outputs[0]]
    dynamic = producer_of(node.inputs[0], _DYNAMIC)
    if dynamic is None or len(others) != 1 or others[0] is None:
        findings.skipped(node, f"what it reads is not made by {_DYNAMIC}")
        return
    factors = _factors(others[0])
    scale = dynamic.outputs[1]
    left = [f for f in factors if f is not scale]
    if len(factors) - len(left) != 1 or len(left) > 1:
        findings.skipped(node, "its result has another scale than that of what it reads")
        return
    second = _source_of(node.inputs[1], left[0]) if left else None
    if second is None:
        weights = _reals(node.inputs[1], left[0] if left else None, input_at(node, 3))
        if weights is None:
            findings.skipped(node, "its weights are computed")
            return
        second = editor.constant(f"{scaled.outputs[0].name}.weight", weights)
    op_type = _FLOAT_OPS[node.op_type]
    _put(scaled, op_type, [dynamic.inputs[0], second], node, editor)
    findings.matched(scaled, f"{node.op_type} with activations rounded as it runs > {op_type}")


def _factors(value: ir.Value) -> list[ir.Value]:
    product = producer_of(value, "Mul")
    return [value] if product is None else [v for v in product.inputs if v is not None]


def _source_of(integers: ir.Value | None, scale: ir.Value | None) -> ir.Value | None:
    """What a DynamicQuantizeLinear made these integers of; None for any other."""
    maker = producer_of(integers, _DYNAMIC)
    return maker.inputs[0] if maker is not None and maker.outputs[1] is scale else None


def _reals(
    integers: ir.Value | None, scale: ir.Value | None, zero: ir.Value | None
) -> Array | None:
    """Constant weights; one scale and zero point, or one an output channel."""
    array, steps, middle = constant_array(integers), constant_array(scale), constant_array(zero)
    if (
        array is None
        or (scale is not None and steps is None)
        or (zero is not None and middle is None)
    ):
        return None
    factor = np.float32(1.0) if steps is None else _along(np.asarray(steps, np.float32), array)
    offset = np.int32(0) if middle is None else _along(middle.astype(np.int32), array)
    return ((array.astype(np.int32) - offset) * factor).astype(np.float32)


def _along(numbers: Array, weights: Array) -> Array:
    """Numbers of output channels, to be broadcast: axis 0 of a kernel, the last of a matrix."""
    if numbers.size == 1:
        return numbers.reshape(())
    return numbers.reshape(-1, *[1] * (weights.ndim - 1)) if weights.ndim > 2 else numbers.ravel()


def _to_matmul(
    node: ir.Node,
    source: ir.Value | None,
    weights: Array | None,
    bias: ir.Value | None,
    editor: GraphEditor,
    findings: Findings,
) -> None:
    if source is None or weights is None:
        findings.skipped(node, "its operands are neither rounded as it runs nor constant")
        return
    constant = editor.constant(f"{node.outputs[0].name}.weight", weights)
    made = _put(node, "MatMul", [source, constant], None, editor)
    if bias is not None:
        editor.follow(made, "Add", [bias])
    findings.matched(made, f"{node.op_type} > MatMul")


def _put(
    place: ir.Node,
    op_type: str,
    inputs: list[ir.Value | None],
    attributes_of: ir.Node | None,
    editor: GraphEditor,
) -> ir.Node:
    """A float op in the place of a node."""
    import onnx_ir as ir

    old = place.outputs[0]
    new = ir.Value(shape=old.shape, type=ir.TensorType(ir.DataType.FLOAT))
    attributes = list(attributes_of.attributes.values()) if attributes_of is not None else []
    made = ir.Node("", op_type, inputs, attributes, outputs=[new], name=place.name)
    copy_provenance([place], made)
    editor.graph.insert_before(place, made)
    editor.take_over(old, new)
    editor.graph.remove(place, safe=True)
    return made
