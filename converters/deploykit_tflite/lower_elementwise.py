"""Ops on two operands with numpy's broadcasting, and on one operand element by element."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from deploykit.graph.node_fields import FormError, needed_value
from deploykit.graph.reading import constant_scalar, is_constant
from deploykit.tensors import Array, QuantParams
from deploykit_tflite import layout
from deploykit_tflite.lowering_context import TABLE, LoweringContext

if TYPE_CHECKING:
    import onnx_ir as ir

#: An operator and its table of options.
Code = tuple[str, str]


def broadcast_operand(
    context: LoweringContext,
    node: ir.Node,
    index: int,
    rank: int,
    params: QuantParams | None = None,
) -> int:
    """An operand such that numpy's rule on TFLite's tensors does what it does on ONNX's.

    The rule aligns the last axes. Where the output is held NHWC, so must be every operand: a
    constant is rearranged when it is written, a computed value of lower rank is reshaped.
    """
    value = needed_value(node, index)
    if is_constant(value):
        return context.constant(value, _aligned(rank), params=params)
    shape = context.shape(node, index)
    if len(shape) == rank or not shape:
        return context.input(node, index, params=params)
    tensor = context.input_in_onnx_order(node, index)
    if params is not None and context.graph.tensors[tensor].quantization != params:
        tensor = context.requantized(tensor, params)
    if rank != layout.HELD_RANK:
        return tensor
    full = (1,) * (rank - len(shape)) + shape
    if not layout.moves_data(full, layout.NHWC_FROM_NCHW):
        return context.reshaped(tensor, layout.held_shape(full))
    return context.transposed(context.reshaped(tensor, full), layout.NHWC_FROM_NCHW)


def _aligned(rank: int) -> Callable[[Array], Array]:
    """Brings a constant to an output of this rank; leading axes of length 1 are dropped."""

    def arranged(array: Array) -> Array:
        full = array.reshape((1,) * (rank - array.ndim) + array.shape)
        held = full.transpose(layout.held_order(rank))
        kept = held.shape
        while kept and kept[0] == 1:
            kept = kept[1:]
        return held.reshape(kept)

    return arranged


@TABLE.register_each(
    Add=("ADD", "AddOptions"),
    Sub=("SUB", "SubOptions"),
    Mul=("MUL", "MulOptions"),
    Div=("DIV", "DivOptions"),
)
def lower_arithmetic(node: ir.Node, context: LoweringContext, code: Code) -> None:
    """ADD, SUB, MUL or DIV, activation fused."""
    rank = len(context.output_shape(node))
    operands = [broadcast_operand(context, node, i, rank) for i in (0, 1)]
    context.emit(
        code[0],
        operands,
        (context.output(node),),
        code[1],
        fusedActivationFunction=context.activation(node),
    )


@TABLE.register_each(Max="MAXIMUM", Min="MINIMUM")
def lower_extremum(node: ir.Node, context: LoweringContext, code: str) -> None:
    """MAXIMUM or MINIMUM; its int8 kernel compares integers, so all three share one scale."""
    if len(node.inputs) != 2:
        raise FormError(f"{len(node.inputs)} operands", "it is not in canonical form")
    rank = len(context.output_shape(node))
    params = context.output_params(node)
    operands = [broadcast_operand(context, node, i, rank, params) for i in (0, 1)]
    context.emit(code, operands, (context.output(node),), "MaximumMinimumOptions")


@TABLE.register("Pow")
def lower_pow(node: ir.Node, context: LoweringContext) -> None:
    """SQRT and RSQRT where they do; otherwise POW."""
    exponent = constant_scalar(needed_value(node, 1))
    if exponent in (0.5, -0.5):
        code = "SQRT" if exponent == 0.5 else "RSQRT"
        context.emit(code, (context.input(node),), (context.output(node),))
        return
    rank = len(context.output_shape(node))
    operands = [broadcast_operand(context, node, i, rank) for i in (0, 1)]
    context.emit("POW", operands, (context.output(node),), "PowOptions")


@TABLE.register_each(
    Exp=("EXP", "ExpOptions"),
    Sqrt=("SQRT", ""),
    Abs=("ABS", "AbsOptions"),
    Neg=("NEG", "NegOptions"),
)
def lower_float_unary(node: ir.Node, context: LoweringContext, code: Code) -> None:
    """EXP, SQRT, ABS or NEG; in float only."""
    context.emit(code[0], (context.input(node),), (context.output(node),), code[1])


@TABLE.register("QuantizeLinear")
def lower_quantize(node: ir.Node, context: LoweringContext) -> None:
    """QUANTIZE: from float to integers, or from one scale to another."""
    value = node.outputs[0]
    context.integer = True  # what it reads is read as it is held
    target = context.new(value.name or "", _held(context, node), context.params[value.name or ""])
    context.bind(value, target)
    context.emit("QUANTIZE", (context.input(node),), (target,), "QuantizeOptions")


@TABLE.register("DequantizeLinear")
def lower_dequantize(node: ir.Node, context: LoweringContext) -> None:
    """DEQUANTIZE: from integers to float."""
    value = node.outputs[0]
    context.integer = True
    target = context.new(value.name or "", _held(context, node))
    context.bind(value, target)
    context.emit("DEQUANTIZE", (context.input(node),), (target,), "DequantizeOptions")


def _held(context: LoweringContext, node: ir.Node) -> Sequence[int]:
    return layout.held_shape(context.shape(node))
