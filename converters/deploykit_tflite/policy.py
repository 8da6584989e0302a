"""How this target is quantized: the format's published int8 specification, as data.

Activations int8, affine, one scale a tensor; weights int8, symmetric (-127..127), one scale an
output channel; biases int32 with scale input x weights and zero point 0. ("TensorFlow Lite 8-bit
quantization specification"; Jacob et al., "Quantization and Training of Neural Networks for
Efficient Integer-Arithmetic-Only Inference", 2018.)
"""

from __future__ import annotations

from deploykit.graph.ops import CLAMPS, JOINING_OPS, SELECTING_OPS, WEIGHTED_OPS
from deploykit.model import Precision
from deploykit.passes.absorb_channel_permutations import AbsorbChannelPermutations
from deploykit.passes.base import Pass
from deploykit.passes.hoist_activations import HoistActivations
from deploykit.passes.split_grouped_convolutions import SplitGroupedConvolutions
from deploykit_quantize.policy import FixedParams, Policy, Recipe
from deploykit_tflite.rewrite_flatten import RewriteFlatten
from deploykit_tflite.rewrite_hard_sigmoid import RewriteHardSigmoid
from deploykit_tflite.rewrite_hard_swish import RewriteHardSwish
from deploykit_tflite.rewrite_max_pool import RewriteMaxPool
from deploykit_tflite.rewrite_silu import RewriteSilu

#: The operator copies, moves or compares integers: output and input have one scale. By the format's
#: specification so do those of a mean over windows, a padded and a resized map.
SAME_SCALE_OPS = SELECTING_OPS | {"AveragePool", "Pad", "Resize"}

#: The operator reads several inputs as if they had one scale, that of its output. So do MAXIMUM
#: and MINIMUM, which compare their integers.
JOINED_SCALE_OPS = JOINING_OPS | {"Max", "Min"}

#: The operator's integer kernel takes any scales. DIV and POW have none in integers.
ANY_SCALE_OPS = (
    WEIGHTED_OPS | CLAMPS | {"Add", "LeakyRelu", "Mul", "PRelu", "ReduceMean", "ReduceSum", "Sub"}
)

#: Output scales that the specification fixes.
FIXED_OUTPUTS = {
    "Sigmoid": FixedParams(1 / 256, -128),
    "Softmax": FixedParams(1 / 256, -128),
    "Tanh": FixedParams(1 / 128, 0),
}

_MOVEMENT = (AbsorbChannelPermutations(), RewriteMaxPool(), RewriteFlatten())

STATIC_INT8 = Policy(
    recipe=Recipe.parse("static_wi8_ai8"),
    quantized_ops=SAME_SCALE_OPS | JOINED_SCALE_OPS | ANY_SCALE_OPS | frozenset(FIXED_OUTPUTS),
    same_scale_ops=SAME_SCALE_OPS,
    joined_scale_ops=JOINED_SCALE_OPS,
    fixed_outputs=FIXED_OUTPUTS,
    rewrites=(
        HoistActivations(),
        *_MOVEMENT,
        RewriteHardSigmoid(form="saturation"),
        RewriteHardSwish(),
        RewriteSilu(),
    ),
)

#: What is rewritten before a float stage is written.
FLOAT_REWRITES: tuple[Pass, ...] = (
    HoistActivations(),
    SplitGroupedConvolutions(),
    *_MOVEMENT,
    RewriteHardSigmoid(form="relu6"),
)


def policy_of(precision: Precision) -> Policy | None:
    """The policy of a precision; None where the float stage is written as it is.

    fp16 and w8 change only how weights are stored, which the writer does by itself.
    """
    return STATIC_INT8 if precision is Precision.INT8 else None
