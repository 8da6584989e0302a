"""Linear layers and products of matrices: InnerProduct and MatMul."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deploykit.graph.node_fields import FormError, needed_constant, needed_value, shape_of
from deploykit.graph.reading import constant_array
from deploykit.tensors import Array
from deploykit_ncnn.blob_axes import length_params
from deploykit_ncnn.lower_convolution import bias_of, emit_product
from deploykit_ncnn.lowering_context import TABLE, LoweringContext

if TYPE_CHECKING:
    import onnx_ir as ir


@TABLE.register("Gemm")
def lower_gemm(node: ir.Node, context: LoweringContext) -> None:
    """InnerProduct of a vector."""
    outputs = context.output_shape(node)[-1]
    bias = bias_of(node, 2)
    if bias is not None and bias.size != outputs:
        bias = np.broadcast_to(bias, (outputs,)).copy()
    layer = context.quantized.layers.get(node)
    context.shape(node)
    if layer is not None:
        emit_product(node, context, context.read_value(layer.source), layer.weights, bias)
        return
    weights = needed_constant(node, 1, "weights")
    emit_product(node, context, context.read(node, 0), weights, bias)


@TABLE.register("MatMul")
def lower_matmul(node: ir.Node, context: LoweringContext) -> None:
    """MatMul; InnerProduct of the rows where the second operand is one constant matrix."""
    left, right = needed_value(node, 0), needed_value(node, 1)
    weights = constant_array(right)
    if weights is not None and weights.ndim == 2 and len(context.shape(node)) >= 2:
        _emit_rows(node, context, weights.T)
        return
    ranks = {len(shape_of(v)) for v in (left, right)}
    if len(ranks) != 1 or min(ranks) < 3:
        raise FormError(
            f"operands of shapes {shape_of(left)} and {shape_of(right)}",
            "give both the same number of axes, at least one of them behind the batch",
        )
    if len(context.shape(node)) > 3:
        raise FormError("more than one axis of matrices behind the batch")
    context.result(node, "MatMul", [context.read(node, 0), context.read(node, 1)])


def _emit_rows(node: ir.Node, context: LoweringContext, weights: Array) -> None:
    """InnerProduct of the last axis, with all axes before it as the rows of one matrix."""
    shape, blob = context.shape(node), context.read(node, 0)
    if len(shape) > 2:
        name = f"{context.output_name(node)}_rows"
        rows = (int(np.prod(shape[:-1])), shape[-1])
        (blob,) = context.emit("Reshape", name, [blob], [name], length_params(rows))
    emit_product(node, context, blob, weights, None)
    if len(shape) > 2:
        made = context.made_by(node)
        name = f"{made.name}_map"
        params = length_params((*shape[:-1], len(weights)))
        (blob,) = context.emit("Reshape", name, [context.blobs[made.name or ""]], [name], params)
        context.bind(made, blob)
