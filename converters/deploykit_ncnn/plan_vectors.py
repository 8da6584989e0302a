"""Which one-pixel maps are held as vectors: (C,) where the value is (1, C, 1, 1).

ncnn's InnerProduct of a vector is a faster kernel than its Convolution of a map of one pixel, and
its Pooling over a whole map gives a vector anyway. So between the mean over a map and the gate that
it ends in (squeeze-and-excite), or the linear layer, values are vectors:

1.  The mean or maximum over height and width, where a reader of it is of case 2 or 4.
2.  A 1 x 1 convolution without groups of a vector: an InnerProduct.
3.  An activation of a vector.
4.  A Reshape of a vector to (1, C): nothing at all.

A BinaryOp with a (C, H, W) blob takes the vector as it is. Any other reader gets a Reshape to
(C, 1, 1) before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploykit.graph.ops import DOMAIN, UNARY_OPS
from deploykit.graph.reading import constant_ints, input_at, is_op, read_int, static_shape

if TYPE_CHECKING:
    import onnx_ir as ir


def plan_vectors(graph: ir.Graph) -> frozenset[ir.Value]:
    """The values that are held as vectors."""
    held: set[ir.Value] = set()
    for node in graph:
        source = input_at(node, 0)
        if source is None or not node.outputs:
            continue
        value = node.outputs[0]
        if _is_whole_map(node):
            readers = [use.node for use in value.uses()]
            if any(is_pointwise(r) or _flattens(r) for r in readers):
                held.add(value)
        elif _read_through_pair(source) in held and (is_pointwise(node) or _is_activation(node)):
            held.add(value)
    return frozenset(held)


def is_pointwise(node: ir.Node) -> bool:
    """Whether a node is a convolution whose every output pixel sees one input pixel."""
    if is_op(node, "QuantizeLinear"):
        return any(is_pointwise(r) for r in _readers_behind(node))
    shape = static_shape(input_at(node, 1)) if is_op(node, "Conv") else None
    if shape is None or len(shape) != 4:
        return False
    pads = node.attributes.get("pads")
    return (
        shape[2:] == (1, 1)
        and read_int(node, "group", 1) == 1
        and (pads is None or not any(pads.as_ints()))
    )


def _readers_behind(quantize: ir.Node) -> list[ir.Node]:
    return [use.node for u in quantize.outputs[0].uses() for use in u.node.outputs[0].uses()]


def _read_through_pair(value: ir.Value) -> ir.Value | None:
    """The value before a QuantizeLinear and DequantizeLinear; the value itself elsewhere."""
    dequantize = value.producer()
    if not is_op(dequantize, "DequantizeLinear") or dequantize is None:
        return value
    quantize = dequantize.inputs[0].producer() if dequantize.inputs[0] is not None else None
    return quantize.inputs[0] if quantize is not None else None


def _is_whole_map(node: ir.Node) -> bool:
    return (
        is_op(node, "ReduceMean", "ReduceMax")
        and constant_ints(input_at(node, 1)) == (2, 3)
        and read_int(node, "keepdims", 1) == 1
        and len(static_shape(node.inputs[0]) or ()) == 4
    )


def _is_activation(node: ir.Node) -> bool:
    return is_op(node, *UNARY_OPS) or is_op(node, "Silu", domain=DOMAIN)


def _flattens(node: ir.Node) -> bool:
    """Whether a node is a Reshape to (1, C)."""
    return is_op(node, "Reshape") and len(static_shape(node.outputs[0]) or ()) == 2
