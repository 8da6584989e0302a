"""Linear layers and products of matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploykit.graph.node_fields import FormError, needed_value
from deploykit.graph.reading import input_at, is_constant, read_float, read_int
from deploykit_tflite import layout
from deploykit_tflite.lowering_context import TABLE, LoweringContext
from deploykit_tflite.store_weights import Hybrid, add_bias, add_weights

if TYPE_CHECKING:
    import onnx_ir as ir


@TABLE.register("Gemm")
def lower_gemm(node: ir.Node, context: LoweringContext) -> None:
    """FULLY_CONNECTED, activation fused."""
    canonical = (
        read_float(node, "alpha", 1.0) == 1.0
        and read_float(node, "beta", 1.0) == 1.0
        and read_int(node, "transA", 0) == 0
    )
    weights_value = needed_value(node, 1)
    if not canonical or not is_constant(weights_value):
        raise FormError("a Gemm with alpha, beta, transA or computed weights", "canonicalize it")
    transposed = read_int(node, "transB", 0) == 1
    order = (0, 1) if transposed else layout.swap_last_two(2)
    producer = needed_value(node, 0).producer()
    flattened = producer is not None and producer in context.plan.kept_nhwc
    kernel = add_weights(
        context,
        weights_value,
        order,
        channel_axis=0,
        hybrid=Hybrid.PER_TENSOR,
        columns_of=context.shape(producer) if producer is not None and flattened else None,
    )
    units = context.shape(node, 1)[0 if transposed else 1]
    bias = add_bias(context, node, input_at(node, 2), units)
    context.emit(
        "FULLY_CONNECTED",
        (context.input(node), kernel, bias),
        (context.output(node),),
        "FullyConnectedOptions",
        fusedActivationFunction=context.activation(node),
        keepNumDims=False,
    )


@TABLE.register("MatMul")
def lower_matmul(node: ir.Node, context: LoweringContext) -> None:
    """FULLY_CONNECTED by a constant matrix; BATCH_MATMUL otherwise."""
    if is_constant(needed_value(node, 1)) and len(context.shape(node, 1)) == 2:
        _lower_constant_matmul(node, context)
        return
    if len(context.shape(node)) < 2 or len(context.shape(node, 1)) < 2:
        raise FormError("a product with a vector", "reshape the vector to a matrix")
    operands = [context.input_in_onnx_order(node, i) for i in (0, 1)]
    rank = len(context.output_shape(node))
    target = context.output(node, order=tuple(range(rank)), clamps=False)
    context.emit(
        "BATCH_MATMUL",
        operands,
        (target,),
        "BatchMatMulOptions",
        adjX=False,
        adjY=False,
        asymmetricQuantizeInputs=False,
    )


def _lower_constant_matmul(node: ir.Node, context: LoweringContext) -> None:
    rank = len(context.output_shape(node))
    kernel = add_weights(
        context,
        needed_value(node, 1),
        layout.swap_last_two(2),
        channel_axis=0,
        hybrid=Hybrid.PER_TENSOR,
    )
    bias = add_bias(context, node, None, context.shape(node, 1)[1])
    source = context.input_in_onnx_order(node)
    target = context.output(node, order=tuple(range(rank)))
    context.emit(
        "FULLY_CONNECTED",
        (source, kernel, bias),
        (target,),
        "FullyConnectedOptions",
        fusedActivationFunction=context.activation(node),
        keepNumDims=rank != 2,
    )
