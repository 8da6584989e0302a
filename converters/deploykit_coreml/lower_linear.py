"""Gemm and MatMul: ``linear`` where one side is a constant matrix, ``matmul`` otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from deploykit.graph.node_fields import FormError, needed_value
from deploykit.graph.reading import constant_array, read_float, read_int
from deploykit_coreml.lower_convolution import bias_of
from deploykit_coreml.lowering_context import TABLE, LoweringContext
from deploykit_coreml.store_weights import weights_of

if TYPE_CHECKING:
    import onnx_ir as ir

#: ``linear`` takes inputs up to this rank.
_LINEAR_RANK = 3


@TABLE.register("Gemm")
def lower_gemm(node: ir.Node, context: LoweringContext) -> None:
    """linear."""
    plain = (
        read_float(node, "alpha", 1.0) == 1.0
        and read_float(node, "beta", 1.0) == 1.0
        and read_int(node, "transA", 0) == 0
        and read_int(node, "transB", 0) == 1
    )
    if not plain:
        raise FormError("a Gemm with alpha, beta or another transposition", "not canonical form")
    arguments: dict[str, Any] = {}
    bias = bias_of(node, context)
    if bias is not None:
        size = context.output_shape(node)[-1]
        arguments["bias"] = np.broadcast_to(bias, (size,)).copy()
    weight = weights_of(node, context, 0)
    context.result(node, "linear", x=context.read(node, 0), weight=weight, **arguments)


@TABLE.register("MatMul")
def lower_matmul(node: ir.Node, context: LoweringContext) -> None:
    """linear by a constant matrix, or matmul."""
    ranks = [len(context.shape(node, index)) for index in (0, 1)]
    if min(ranks) < 2:
        raise FormError("a product with a vector", "give the vector a second axis")
    constants = [constant_array(needed_value(node, index)) is not None for index in (0, 1)]
    if all(constants):
        raise FormError("a product of two constants", "it should have been folded")
    if constants[1] and ranks[1] == 2 and ranks[0] <= _LINEAR_RANK:
        weight = weights_of(node, context, 1, np.transpose, 0)
        context.result(node, "linear", x=context.read(node, 0), weight=weight)
        return
    context.result(node, "matmul", x=context.read(node, 0), y=context.read(node, 1))
