"""Activations that stand alone: those that clamp, and those with a curve."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deploykit.graph.node_fields import FormError, needed_value
from deploykit.graph.op_facts import clamp_of
from deploykit.graph.ops import DOMAIN
from deploykit.graph.reading import constant_array, read_float, read_int, read_string
from deploykit.tensors import QuantParams
from deploykit_tflite import layout
from deploykit_tflite.lowering_context import TABLE, LoweringContext
from deploykit_tflite.tflite_graph import ACTIVATION_NONE, ACTIVATION_RELU6

if TYPE_CHECKING:
    import onnx_ir as ir

#: What the format's int8 specification fixes for the output of these operators.
LOGISTIC_OUTPUT = QuantParams((1 / 256,), (-128,), "int8")
SOFTMAX_OUTPUT = QuantParams((1 / 256,), (-128,), "int8")
TANH_OUTPUT = QuantParams((1 / 128,), (0,), "int8")


@TABLE.register("Relu", "Clip")
def lower_clamp(node: ir.Node, context: LoweringContext) -> None:
    """RELU, RELU6, RELU_N1_TO_1, or MINIMUM and MAXIMUM."""
    bounds = clamp_of(node)
    if bounds is None:
        raise FormError("its bounds are computed", "bounds must be constants")
    if bounds == (-np.inf, np.inf):
        context.alias(node, context.input(node))
        return
    context.clamp(context.input(node), context.output(node), bounds)


@TABLE.register("LeakyRelu")
def lower_leaky_relu(node: ir.Node, context: LoweringContext) -> None:
    """LEAKY_RELU."""
    alpha = read_float(node, "alpha", 0.01)
    context.emit(
        "LEAKY_RELU",
        (context.input(node),),
        (context.output(node),),
        "LeakyReluOptions",
        alpha=alpha,
    )


@TABLE.register("PRelu")
def lower_prelu(node: ir.Node, context: LoweringContext) -> None:
    """PRELU; the slope stands on the last axis, where the channels are."""
    value = needed_value(node, 1)
    slope = constant_array(value)
    if slope is None:
        raise FormError("its slope is computed", "the slope must be a constant")
    rank = len(context.output_shape(node))
    if slope.ndim == rank and slope.shape[0] != 1:
        raise FormError("a slope for each sample of a batch", "use one slope a channel")
    order = layout.held_order(rank)
    operand = context.constant(
        value,
        # The format wants the slope without the batch axis.
        lambda a: a.reshape((1,) * (rank - a.ndim) + a.shape).transpose(order)[0],
    )
    context.emit("PRELU", (context.input(node), operand), (context.output(node),))


@TABLE.register("Elu")
def lower_elu(node: ir.Node, context: LoweringContext) -> None:
    """relu(x) + alpha * (exp(min(x, 0)) - 1), in operators that every kernel set has.

    The format's ELU has alpha 1 only, and the reference kernels lack it: a file with it could not
    be verified against them.
    """
    alpha = read_float(node, "alpha", 1.0)
    source = context.input(node)
    negative, curve, lowered, scaled, positive = (
        context.like(source, name) for name in ("negative", "exp", "expm1", "scaled", "positive")
    )
    zero, one, factor = (
        context.graph.add_constant("elu", np.asarray(c, np.float32)) for c in (0, 1, alpha)
    )
    none = {"fusedActivationFunction": ACTIVATION_NONE}
    context.emit("MINIMUM", (source, zero), (negative,), "MaximumMinimumOptions")
    context.emit("EXP", (negative,), (curve,), "ExpOptions")
    context.emit("SUB", (curve, one), (lowered,), "SubOptions", **none)
    if alpha != 1.0:
        context.emit("MUL", (lowered, factor), (scaled,), "MulOptions", **none)
        lowered = scaled
    context.emit("RELU", (source,), (positive,))
    context.emit("ADD", (positive, lowered), (context.output(node),), "AddOptions", **none)


@TABLE.register("Sigmoid")
def lower_sigmoid(node: ir.Node, context: LoweringContext) -> None:
    """LOGISTIC."""
    target = context.output(node, params=LOGISTIC_OUTPUT)
    context.emit("LOGISTIC", (context.input(node),), (target,))


@TABLE.register("Tanh")
def lower_tanh(node: ir.Node, context: LoweringContext) -> None:
    """TANH."""
    target = context.output(node, params=TANH_OUTPUT)
    context.emit("TANH", (context.input(node),), (target,))


@TABLE.register("Gelu")
def lower_gelu(node: ir.Node, context: LoweringContext) -> None:
    """GELU."""
    approximate = read_string(node, "approximate", "none") == "tanh"
    context.emit(
        "GELU",
        (context.input(node),),
        (context.output(node),),
        "GeluOptions",
        approximate=approximate,
    )


#: Numerator and denominator of erf(x) / x as polynomials in x^2, ascending, for |x| <= 4: a least
#: squares fit, re-weighted until the greatest error was even. In float32 it is off by at most
#: 3.2e-7 for any x, the clamp included.
_ERF_ABOVE = (
    1.1283787,
    0.213825668,
    0.0524175157,
    0.004286281,
    1.55238113e-4,
    -1.98650299e-6,
    1.91757232e-8,
)
_ERF_BELOW = (1.0, 0.522825919, 0.120749821, 0.0155397608, 0.00109591506)
_ERF_END = 4.0


@TABLE.register("Erf")
def lower_erf(node: ir.Node, context: LoweringContext) -> None:
    """x P(x^2) / Q(x^2) of x clamped to -4..4: the format has no operator for it."""
    source, target = context.input(node), context.output(node)
    none = {"fusedActivationFunction": ACTIVATION_NONE}

    def emit(code: str, first: int, second: int | float, into: int | None = None) -> int:
        if isinstance(second, float):
            second = context.graph.add_constant("erf", np.asarray(second, np.float32))
        made = context.like(source, code.lower()) if into is None else into
        options = "MaximumMinimumOptions" if code.endswith("IMUM") else f"{code.title()}Options"
        extra = {} if code.endswith("IMUM") else none
        context.emit(code, (first, second), (made,), options, **extra)
        return made

    def polynomial(coefficients: tuple[float, ...]) -> int:
        result = emit("MUL", square, coefficients[-1])
        for coefficient in coefficients[-2:0:-1]:
            result = emit("MUL", emit("ADD", result, coefficient), square)
        return emit("ADD", result, coefficients[0])

    x = emit("MAXIMUM", emit("MINIMUM", source, _ERF_END), -_ERF_END)
    square = emit("MUL", x, x)
    odd = emit("MUL", x, polynomial(_ERF_ABOVE))
    emit("DIV", odd, polynomial(_ERF_BELOW), target)


@TABLE.register("HardSwish")
def lower_hard_swish(node: ir.Node, context: LoweringContext) -> None:
    """HARD_SWISH: x * relu6(x + 3) / 6."""
    context.emit("HARD_SWISH", (context.input(node),), (context.output(node),), "HardSwishOptions")


@TABLE.register("HardSigmoid")
def lower_hard_sigmoid(node: ir.Node, context: LoweringContext) -> None:
    """clip(alpha x + beta, 0, 1) as relu6(6 alpha x + 6 beta) / 6.

    RELU_0_TO_1 would be shorter, and no delegate takes it. Where the producer is a convolution,
    `RewriteHardSigmoid` has folded the inner part into it before this is reached.
    """
    alpha, beta = (read_float(node, "alpha", 0.2), read_float(node, "beta", 0.5))
    source = context.input(node)

    def constant(number: float) -> int:
        return context.graph.add_constant("hard_sigmoid", np.asarray(number, np.float32))

    none = {"fusedActivationFunction": ACTIVATION_NONE}
    if abs(6 * alpha - 1) > 1e-6:
        scaled = context.like(source, "scaled")
        context.emit("MUL", (source, constant(6 * alpha)), (scaled,), "MulOptions", **none)
        source = scaled
    clamped = context.like(source, "relu6")
    context.emit(
        "ADD",
        (source, constant(6 * beta)),
        (clamped,),
        "AddOptions",
        fusedActivationFunction=ACTIVATION_RELU6,
    )
    context.emit("MUL", (clamped, constant(1 / 6)), (context.output(node),), "MulOptions", **none)


@TABLE.register("Silu", domain=DOMAIN)
def lower_silu(node: ir.Node, context: LoweringContext) -> None:
    """x * LOGISTIC(x)."""
    source = context.input(node)
    gate = context.like(source, "logistic")
    context.emit("LOGISTIC", (source,), (gate,))
    context.emit(
        "MUL",
        (source, gate),
        (context.output(node),),
        "MulOptions",
        fusedActivationFunction=ACTIVATION_NONE,
    )


@TABLE.register("Softmax")
def lower_softmax(node: ir.Node, context: LoweringContext) -> None:
    """SOFTMAX, which runs over the last axis."""
    shape = context.shape(node)
    axis = read_int(node, "axis", -1) % len(shape)
    order = layout.held_order(len(shape))
    source = context.input(node)
    if order[-1] != axis:
        permutation = layout.axis_last(order.index(axis), len(shape))
        source = context.transposed(source, permutation)
        order = tuple(order[a] for a in permutation)
    target = context.output(node, order=order, params=SOFTMAX_OUTPUT)
    context.emit("SOFTMAX", (source,), (target,), "SoftmaxOptions", beta=1.0)
