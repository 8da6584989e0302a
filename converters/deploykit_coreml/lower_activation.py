"""Activations: most have a separate op in MIL."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from deploykit.graph.node_fields import FormError, needed_value
from deploykit.graph.ops import DOMAIN
from deploykit.graph.reading import (
    constant_array,
    constant_scalar,
    input_at,
    read_float,
    read_int,
    read_string,
)
from deploykit_coreml.lowering_context import TABLE, LoweringContext

if TYPE_CHECKING:
    import onnx_ir as ir


@TABLE.register_each(
    Relu="relu", Sigmoid="sigmoid", Tanh="tanh", Exp="exp", Sqrt="sqrt", Abs="abs", Erf="erf"
)
def lower_plain(node: ir.Node, context: LoweringContext, code: str) -> None:
    """The op of MIL that has the same meaning."""
    context.result(node, code, x=context.read(node, 0))


@TABLE.register("Silu", domain=DOMAIN)
def lower_silu(node: ir.Node, context: LoweringContext) -> None:
    """silu: x sigmoid(x)."""
    context.result(node, "silu", x=context.read(node, 0))


@TABLE.register("Neg")
def lower_neg(node: ir.Node, context: LoweringContext) -> None:
    """mul by -1."""
    context.result(node, "mul", x=context.read(node, 0), y=context.scalar(-1.0))


@TABLE.register("Clip")
def lower_clip(node: ir.Node, context: LoweringContext) -> None:
    """relu6, clip, or maximum or minimum where one side is open."""
    low, high = (_bound(node, index, open_) for index, open_ in ((1, -math.inf), (2, math.inf)))
    x = context.read(node, 0)
    if (low, high) == (0.0, 6.0):
        context.result(node, "relu6", x=x)
    elif math.isinf(low) and math.isinf(high):
        context.result(node, "identity", x=x)
    elif math.isinf(low):
        context.result(node, "minimum", x=x, y=context.scalar(high))
    elif math.isinf(high):
        context.result(node, "maximum", x=x, y=context.scalar(low))
    else:
        context.result(node, "clip", x=x, alpha=context.scalar(low), beta=context.scalar(high))


def _bound(node: ir.Node, index: int, open_: float) -> float:
    value = input_at(node, index)
    if value is None:
        return open_
    bound = constant_scalar(value)
    if bound is None:
        raise FormError("its bounds are computed", "bounds must be constants")
    # The lowest float32 is how exporters write "no bound".
    return open_ if abs(bound) >= float(np.finfo(np.float32).max) else bound


@TABLE.register("LeakyRelu")
def lower_leaky_relu(node: ir.Node, context: LoweringContext) -> None:
    """leaky_relu."""
    alpha = context.scalar(read_float(node, "alpha", 0.01))
    context.result(node, "leaky_relu", x=context.read(node, 0), alpha=alpha)


@TABLE.register("PRelu")
def lower_prelu(node: ir.Node, context: LoweringContext) -> None:
    """prelu with one slope a channel; max(x, 0) + slope min(x, 0) for any other shape of slope."""
    slope = constant_array(needed_value(node, 1))
    if slope is None:
        raise FormError("its slope is computed", "the slope must be a constant")
    shape, x = context.shape(node), context.read(node, 0)
    held = context.constant(slope, "slope")
    by_channel = (shape[1], 1, 1) if len(shape) == 4 else ()
    if slope.size == 1 or slope.shape == by_channel:
        alpha = np.broadcast_to(held.reshape(-1), (shape[1],)).copy() if len(shape) == 4 else None
        if alpha is not None:
            context.result(node, "prelu", x=x, alpha=alpha)
            return
    name = context.output_name(node)
    positive = context.emit("relu", f"{name}_positive", x=x)
    negative = context.emit("minimum", f"{name}_negative", x=x, y=context.scalar(0.0))
    scaled = context.emit("mul", f"{name}_scaled", x=negative, y=held)
    context.bind(node, context.emit("add", name, x=positive, y=scaled))


@TABLE.register("Elu")
def lower_elu(node: ir.Node, context: LoweringContext) -> None:
    """elu."""
    alpha = context.scalar(read_float(node, "alpha", 1.0))
    context.result(node, "elu", x=context.read(node, 0), alpha=alpha)


@TABLE.register("HardSigmoid")
def lower_hard_sigmoid(node: ir.Node, context: LoweringContext) -> None:
    """sigmoid_hard: clip(alpha x + beta, 0, 1)."""
    alpha = context.scalar(read_float(node, "alpha", 0.2))
    beta = context.scalar(read_float(node, "beta", 0.5))
    context.result(node, "sigmoid_hard", x=context.read(node, 0), alpha=alpha, beta=beta)


@TABLE.register("HardSwish")
def lower_hard_swish(node: ir.Node, context: LoweringContext) -> None:
    """thresholded_relu(x, -3) * sigmoid_hard(x, 1/6, 1/2).

    MIL has no hard swish. The threshold changes nothing where x >= -3, and below it the other
    factor is 0: the product is x clip(x / 6 + 1/2, 0, 1) everywhere (Howard et al.,
    "Searching for MobileNetV3", 2019).
    """
    name, x = context.output_name(node), context.read(node, 0)
    kept = context.emit("thresholded_relu", f"{name}_kept", x=x, alpha=context.scalar(-3.0))
    gate = context.emit(
        "sigmoid_hard",
        f"{name}_gate",
        x=x,
        alpha=context.scalar(1 / 6),
        beta=context.scalar(0.5),
    )
    context.bind(node, context.emit("mul", name, x=kept, y=gate))


@TABLE.register("Gelu")
def lower_gelu(node: ir.Node, context: LoweringContext) -> None:
    """gelu, exact or by tanh."""
    tanh = read_string(node, "approximate", "none") == "tanh"
    mode = "TANH_APPROXIMATION" if tanh else "EXACT"
    context.result(node, "gelu", x=context.read(node, 0), mode=mode)


@TABLE.register("Softmax")
def lower_softmax(node: ir.Node, context: LoweringContext) -> None:
    """softmax."""
    axis = read_int(node, "axis", -1)
    context.result(node, "softmax", x=context.read(node, 0), axis=axis)
