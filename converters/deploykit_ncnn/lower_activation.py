"""Activations that are layers of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from deploykit.graph.node_fields import FormError, needed_constant, needed_value
from deploykit.graph.ops import DOMAIN
from deploykit.graph.reading import read_float, read_int, read_string
from deploykit_ncnn.layer_graph import Param, Weight
from deploykit_ncnn.lower_elementwise import scaled_by
from deploykit_ncnn.lowering_context import TABLE, LoweringContext
from deploykit_ncnn.plan_fusions import clip_bounds

if TYPE_CHECKING:
    import onnx_ir as ir


@TABLE.register_each(Relu="ReLU", Sigmoid="Sigmoid", Tanh="TanH", Erf="Erf")
def lower_plain(node: ir.Node, context: LoweringContext, code: str) -> None:
    """A layer without parameters."""
    _emit_of_vector(node, context, code)


@TABLE.register_each(Abs=0, Neg=1, Sqrt=5, Exp=7)
def lower_unary(node: ir.Node, context: LoweringContext, code: int) -> None:
    """UnaryOp, by its ``op_type``."""
    _emit_of_vector(node, context, "UnaryOp", {0: code})


@TABLE.register("Silu", domain=DOMAIN)
def lower_silu(node: ir.Node, context: LoweringContext) -> None:
    """Swish: x sigmoid(x)."""
    _emit_of_vector(node, context, "Swish")


@TABLE.register("Clip")
def lower_clip(node: ir.Node, context: LoweringContext) -> None:
    """Clip."""
    bounds = clip_bounds(node)
    if bounds is None:
        raise FormError("its bounds are computed", "bounds must be constants")
    _emit_of_vector(node, context, "Clip", dict(enumerate(bounds)))


@TABLE.register("LeakyRelu")
def lower_leaky_relu(node: ir.Node, context: LoweringContext) -> None:
    """ReLU with a slope."""
    _emit_of_vector(node, context, "ReLU", {0: read_float(node, "alpha", 0.01)})


@TABLE.register("PRelu")
def lower_prelu(node: ir.Node, context: LoweringContext) -> None:
    """PReLU with one slope a channel; max(x, 0) + slope min(x, 0) for any other shape of slope."""
    slope, shape = needed_constant(node, 1, "slope"), context.shape(node)
    channels = (shape[0],) + (1,) * (len(shape) - 1)
    if slope.size == 1 or tuple(slope.shape)[-len(shape) :] == channels:
        held = np.broadcast_to(np.asarray(slope, np.float32).reshape(-1), (shape[0],))
        numbers = held[:1] if slope.size == 1 else held
        _emit(node, context, "PReLU", {0: numbers.size}, [Weight(numbers.copy())])
        return
    name, blob = context.output_name(node), context.read(node, 0)
    (positive,) = context.emit("ReLU", f"{name}_positive", [blob], [f"{name}_positive"])
    params: dict[int, Param] = {0: 5, 1: 1, 2: 0.0}
    (negative,) = context.emit("BinaryOp", f"{name}_negative", [blob], [f"{name}_negative"], params)
    scaled = scaled_by(context, f"{name}_scaled", negative, slope, shape)
    context.result(node, "BinaryOp", [positive, scaled], {0: 0})


@TABLE.register("Elu")
def lower_elu(node: ir.Node, context: LoweringContext) -> None:
    """ELU."""
    _emit_of_vector(node, context, "ELU", {0: read_float(node, "alpha", 1.0)})


@TABLE.register("HardSigmoid")
def lower_hard_sigmoid(node: ir.Node, context: LoweringContext) -> None:
    """HardSigmoid: clip(alpha x + beta, 0, 1)."""
    numbers = {0: read_float(node, "alpha", 0.2), 1: read_float(node, "beta", 0.5)}
    _emit_of_vector(node, context, "HardSigmoid", numbers)


@TABLE.register("HardSwish")
def lower_hard_swish(node: ir.Node, context: LoweringContext) -> None:
    """HardSwish: x clip(x / 6 + 1/2, 0, 1)."""
    _emit_of_vector(node, context, "HardSwish", {0: 1 / 6, 1: 0.5})


@TABLE.register("Gelu")
def lower_gelu(node: ir.Node, context: LoweringContext) -> None:
    """GELU, exact or by tanh."""
    fast = read_string(node, "approximate", "none") == "tanh"
    _emit_of_vector(node, context, "GELU", {0: 1} if fast else {})


@TABLE.register("Softmax")
def lower_softmax(node: ir.Node, context: LoweringContext) -> None:
    """Softmax."""
    _emit(node, context, "Softmax", {0: context.axis(node, read_int(node, "axis", -1)), 1: 1})


def _emit(
    node: ir.Node,
    context: LoweringContext,
    kind: str,
    params: Mapping[int, Param] | None = None,
    weights: list[Weight] | None = None,
) -> None:
    context.shape(node)
    blob = context.read(node, 0)
    context.result(node, kind, [blob], dict(params or {}), weights or [])


def _emit_of_vector(
    node: ir.Node,
    context: LoweringContext,
    kind: str,
    params: Mapping[int, Param] | None = None,
) -> None:
    """A layer that is the same for a vector and for a map."""
    context.shape(node)
    blob = context.read_value(needed_value(node, 0), as_vector=node.outputs[0] in context.vectors)
    context.result(node, kind, [blob], dict(params or {}))
