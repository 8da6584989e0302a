"""How int8 is placed: as data.

Weights int8, symmetric, one scale an output channel; activations int8, affine, one scale a tensor,
around the ops that Core ML computes in integers where they stand between ``dequantize`` and
``quantize`` (convolutions, linear layers, additions, pooling) and those that only move values,
which cost less on 8 bits. What has a curve, and what multiplies two activations, stays in floats:
its result is rounded where the next convolution reads it, and nowhere else.
"""

from __future__ import annotations

from deploykit.model import Precision
from deploykit_quantize.policy import Policy, Recipe

#: The result has the scale of what was read: values are moved, or one of them is picked.
SAME_SCALE_OPS = frozenset(
    {
        "ChannelShuffle",
        "Expand",
        "Gather",
        "MaxPool",
        "Reshape",
        "Slice",
        "Split",
        "Transpose",
    }
)

#: All operands and results have one scale, so that joining them moves integers only.
JOINED_SCALE_OPS = frozenset({"Concat", "ConcatShuffleSplit"})

#: Operands and results each have a scale of their own.
ANY_SCALE_OPS = frozenset(
    {"Add", "AveragePool", "Clip", "Conv", "ConvTranspose", "Gemm", "MatMul", "ReduceMean", "Relu"}
)

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
