"""How this target is quantized: as ncnn's integer layers compute.

A Convolution, ConvolutionDepthWise or InnerProduct in integers rounds what it reads, adds products
of integers up in int32, and turns the sum back to a float before it adds the bias and applies its
activation:

    q = clamp(round(x s), -127, 127)        s = 127 / max |x| over the calibration samples
    y = activation(sum(q w) / (s t) + bias) t = 127 / max |w| of the output channel, or the group

Everything else, pools, sums, gates, concatenations, is computed in floats. So only what these
layers read is quantized, symmetrically; what they make is float.
"""

from __future__ import annotations

from dataclasses import replace

from deploykit.model import Precision
from deploykit_ncnn.options import WriteOptions
from deploykit_ncnn.quantized_inputs import QUANTIZED_OPS
from deploykit_quantize.policy import Policy, Recipe, TensorRule

_ACTIVATIONS = TensorRule("int8", symmetric=True, per_channel=False)


def policy_of(precision: Precision, options: WriteOptions) -> Policy | None:
    """The policy of a precision; None where the float stage is written as it is."""
    if precision is not Precision.INT8:
        return None
    return Policy(
        recipe=replace(Recipe.parse("static_wi8_ai8"), activations=_ACTIVATIONS),
        quantized_ops=QUANTIZED_OPS,
        inputs_only=True,
        group_scales=True,
        float_depthwise=options.float_depthwise,
    )
