"""Ops on two operands, with numpy's broadcasting, and the QDQ nodes that are left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploykit.graph.node_fields import FormError
from deploykit.graph.reading import constant_scalar, input_at
from deploykit_coreml.lowering_context import TABLE, LoweringContext

if TYPE_CHECKING:
    import onnx_ir as ir


@TABLE.register_each(Add="add", Sub="sub", Mul="mul", Div="real_div", Max="maximum", Min="minimum")
def lower_binary(node: ir.Node, context: LoweringContext, code: str) -> None:
    """add, sub, mul, real_div, maximum or minimum."""
    if len(node.inputs) != 2:
        raise FormError(f"{len(node.inputs)} operands", "it is not in canonical form")
    context.result(node, code, x=context.read(node, 0), y=context.read(node, 1))


@TABLE.register("Pow")
def lower_pow(node: ir.Node, context: LoweringContext) -> None:
    """sqrt where it does, otherwise pow."""
    if constant_scalar(input_at(node, 1)) == 0.5:
        context.result(node, "sqrt", x=context.read(node, 0))
        return
    context.result(node, "pow", x=context.read(node, 0), y=context.read(node, 1))


@TABLE.register("QuantizeLinear")
def lower_quantize(node: ir.Node, context: LoweringContext) -> None:
    """quantize and dequantize: from float to a grid, or from one grid to another."""
    context.bind(node, context.read(node, 0))


@TABLE.register("DequantizeLinear")
def lower_dequantize(node: ir.Node, context: LoweringContext) -> None:
    """Nothing: a quantized value is held dequantized."""
    context.bind(node, context.read(node, 0))
