"""How int8 is placed: as data.

Weights int8, symmetric, one scale an output channel; activations int8, affine, one scale a tensor,
around the ops that Core ML computes in integers where they stand between ``dequantize`` and
``quantize`` (convolutions, linear layers, additions, pooling) and those that only move values,
which cost less on 8 bits. What has a curve, and what multiplies two activations, stays in floats:
its result is rounded where the next convolution reads it, and nowhere else.
"""

from __future__ import annotations

from deploykit.graph.ops import CLAMPS, JOINING_OPS, REDUCTIONS, SELECTING_OPS, WEIGHTED_OPS
from deploykit.model import Precision
from deploykit_quantize.policy import Policy, Recipe

#: The result has the scale of what was read: values are moved, or one of them is picked. A maximum
#: over a whole map is not among Core ML's integer ops.
SAME_SCALE_OPS = SELECTING_OPS - REDUCTIONS

#: All operands and results have one scale, so that joining them moves integers only.
JOINED_SCALE_OPS = JOINING_OPS

#: Operands and results each have a separate scale: layers, additions, pools and clamps. What
#: multiplies, subtracts or divides activations stays in floats.
ANY_SCALE_OPS = WEIGHTED_OPS | CLAMPS | {"Add", "AveragePool", "ReduceMean"}

STATIC_INT8 = Policy(
    recipe=Recipe.parse("static_wi8_ai8"),
    quantized_ops=SAME_SCALE_OPS | JOINED_SCALE_OPS | ANY_SCALE_OPS,
    same_scale_ops=SAME_SCALE_OPS,
    joined_scale_ops=JOINED_SCALE_OPS,
)


def policy_of(precision: Precision) -> Policy | None:
    """The policy of a precision; None where the float stage is written as it is.

    fp16 and w8 change only how weights are stored, which the writer does by itself.
    """
    return STATIC_INT8 if precision is Precision.INT8 else None
