"""Functions of each element by itself, and Softmax."""

from __future__ import annotations

import math

from deploykit.graph.op_facts import intervals
from deploykit.graph.op_facts.declaration import DOMAIN, Channels, IntervalRule, Kind, Op


def _unary(
    op_type: str,
    spelling: str,
    operations: int,
    interval: IntervalRule | None,
    *,
    clamps: bool = False,
    least: float | None = None,
    structural: tuple[int, ...] = (),
    undamped: bool = False,
    sensitive: int | None = None,
    cost: str = "",
    domain: str = "",
) -> Op:
    return Op(
        op_type,
        spelling,
        cost or f"elementwise {operations}",
        Kind.UNARY,
        Channels.TIES,
        interval,
        domain,
        clamps=clamps,
        least=least,
        structural=structural,
        undamped=undamped,
        sensitive=sensitive,
    )


def _hard_swish(x: float) -> float:
    return x * max(0.0, min(1.0, x / 6.0 + 0.5))


def _gelu(x: float) -> float:
    return 0.5 * x * (1.0 + math.erf(x / math.sqrt(2.0)))


def _silu(x: float) -> float:
    return x * intervals.sigmoid(x)


ACTIVATIONS = (
    _unary("Relu", "", 1, intervals.clamped, clamps=True),
    _unary(
        "Clip",
        "both bounds constant scalars; ReLU6 is Clip(0, 6)",
        2,
        intervals.clamped,
        clamps=True,
        structural=(1, 2),
    ),
    _unary("LeakyRelu", "alpha explicit", 2, intervals.rectified, undamped=True),
    Op(
        "PRelu",
        "slope constant, one a channel: (C, 1, 1)",
        "elementwise 2",
        Kind.BINARY,  # the slope is its second operand
        Channels.BROADCASTS,
        undamped=True,
    ),
    _unary("Elu", "alpha explicit", 3, intervals.elu, least=-1.0),
    _unary("Sigmoid", "", 4, intervals.of_ends(intervals.sigmoid)),
    _unary("Tanh", "", 1, intervals.of_ends(math.tanh)),
    _unary(
        "HardSigmoid",
        "alpha, beta explicit; torch's is alpha = 1/6, beta = 1/2",
        4,
        intervals.within(0.0, 1.0),
    ),
    _unary("HardSwish", "", 5, intervals.above_least(_hard_swish, -1.5, -0.375), least=-0.375),
    _unary(
        "Gelu",
        "approximate explicit",
        5,
        intervals.above_least(_gelu, -0.7518, -0.1702),
        least=-0.17,
        cost="gelu",
    ),
    Op(
        "Softmax",
        "axis explicit and not negative",
        "elementwise 5",
        Kind.NORMALIZATION,
        interval=intervals.within(0.0, 1.0),
    ),
    _unary("Exp", "", 1, intervals.of_ends(intervals.exponential), sensitive=0),
    _unary("Sqrt", "", 1, intervals.of_ends(intervals.root), sensitive=0),
    _unary("Abs", "", 1, intervals.magnitude, undamped=True),
    _unary("Erf", "", 1, intervals.of_ends(math.erf)),
    _unary("Neg", "", 1, intervals.of_ends(lambda x: -x), undamped=True),
)

#: ONNX functions of ours, which stand at the end of the canonical set.
ACTIVATION_FUNCTIONS = (
    _unary(
        "Silu",
        "x * sigmoid(x)",
        5,
        intervals.above_least(_silu, -1.2785, -0.2785),
        least=-0.2785,
        domain=DOMAIN,
    ),
)
