"""From ranges of reals to scales and zero points.

Affine quantization as in Jacob et al. 2018 (arXiv:1712.05877), section 2.1, with the rounding of
ONNX's QuantizeLinear (nearest, ties to even) and the restrictions of the published int8
specification of TFLite: zero is exactly representable, weights are symmetric in -127..127, a bias
is int32 with the scale of the input times that of the weights.
"""

from __future__ import annotations

import math

import numpy as np

from deploykit.errors import DataError
from deploykit.graph.fold_qdq_nodes import bias_scales
from deploykit.tensors import Array, FloatArray, QuantParams
from deploykit_quantize.policy import TensorRule

#: The smallest scale: below it, a float32 loses precision.
SMALLEST_SCALE = float(np.finfo(np.float32).tiny)

#: Largest bias in steps. An accumulator of int32 holds bias plus products: half of its range is
#: left to them, enough for 2**15 products of 127 x 255.
LARGEST_BIAS = 2**30

#: Output steps of one step of input times weight: below 256, with room for float32's rounding.
_MOST_OUTPUT_STEPS = 255.0

#: No channel's scale is smaller than the largest channel's times this: what a weaker channel
#: adds is far below one step of any output, and runtimes refuse multipliers below 2**-31.
SMALLEST_CHANNEL = 2.0**-20

#: The scale of weights that are all zero.
SCALE_OF_ZEROS = 2.0**-10


def params_from_range(low: float, high: float, rule: TensorRule) -> QuantParams:
    """The parameters that represent ``low``..``high`` best.

    Affine: the range is widened to contain 0; scale = (high - low) / 255; the zero point is
    ``lowest - low / scale`` rounded to the nearest integer, a tie to the even one. Rounding moves
    the range by up to half a step: an end of the range may saturate by that much.
    Symmetric: zero point 0, scale = max(|low|, |high|) / 127 (uint8: zero point 128); a rule of 7
    bits has 63 in the place of 127.
    A range of zero width gives scale 1: the value is always 0.

    Args:
        low: Smallest real.
        high: Largest real, at least ``low``.
        rule: dtype and symmetry; whether it is per channel does not matter here.

    Raises:
        DataError: a bound that is not finite, or low → high.
    """
    if not (math.isfinite(low) and math.isfinite(high)) or low > high:
        raise DataError(
            f"a range of {low}..{high} to quantize", expected="finite bounds, the lower one first"
        )
    low, high = min(low, 0.0), max(high, 0.0)
    info = np.iinfo(rule.dtype)
    if rule.symmetric:
        # On as many integers on either side of the middle one; -128 is omitted.
        scale = _usable_scale(max(-low, high) / rule.largest)
        return QuantParams((scale,), (0 if rule.dtype == "int8" else 128,), rule.dtype)
    scale = _usable_scale((high - low) / (int(info.max) - int(info.min)))
    zero_point = int(np.rint(int(info.min) - low / scale))
    zero_point = min(max(zero_point, int(info.min)), int(info.max))
    return QuantParams((scale,), (zero_point,), rule.dtype)


def weight_params(weights: FloatArray, axis: int | None, rule: TensorRule) -> QuantParams:
    """Symmetric parameters of weights: integers in -127..127 (uint8: 1..255 around 128).

    A channel of zeros gets the smallest scale among the others (2**-10 if all are zero): its
    bias, which has this scale as a factor, stays precise. No scale is below 2**-20 of the largest.

    Args:
        weights: float32.
        axis: The channel axis if the rule is per channel; None for one scale.
        rule: Of the weights.

    Raises:
        DataError: weights that are not finite.
    """
    magnitude = np.abs(np.asarray(weights, dtype=np.float32))
    if not np.isfinite(magnitude).all():
        raise DataError(
            "weights that are not finite", advice="look for NaN or inf in the checkpoint"
        )
    if axis is None or not rule.per_channel:
        return params_from_range(0.0, float(magnitude.max(initial=0.0)), rule)
    others = tuple(a for a in range(magnitude.ndim) if a != axis)
    largest = magnitude.max(axis=others, initial=0.0).astype(np.float64)
    scales = largest / rule.largest
    if largest.any():
        scales = np.where(largest > 0, scales, scales[largest > 0].min())
        scales = np.maximum(scales, scales.max() * SMALLEST_CHANNEL)
    else:
        scales[:] = SCALE_OF_ZEROS
    zero = 0 if rule.dtype == "int8" else 128
    return QuantParams(
        tuple(_usable_scale(float(s)) for s in scales), (zero,) * scales.size, rule.dtype, axis
    )


def bias_params(
    data: QuantParams, weights: QuantParams, shape: tuple[int, ...] | None = None
) -> QuantParams:
    """int32 parameters of a bias: scale of the input times scale of the weights, zero point 0.

    Args:
        data: Per-tensor parameters of the input.
        weights: Parameters of the weights.
        shape: Shape of the bias, channels on its last axis; one channel for each weight scale if
            left out. A grouped ConvTranspose has more: its groups share the scales.
    """
    return bias_scales(data, weights, (len(weights.scale),) if shape is None else shape)


def fit_weight_params(bias: FloatArray, data: QuantParams, weights: QuantParams) -> QuantParams:
    """Weight parameters with scales large enough that the int32 bias holds ``bias``.

    Where |bias / (input scale x weight scale)| exceeds 2**30, that channel's weight scale is
    enlarged until it does not. The channel's weights lose precision, but the bias that dwarfs
    them keeps its value instead of saturating.
    """
    largest = np.abs(np.asarray(bias, dtype=np.float64)).ravel()
    if weights.axis is None:
        largest = largest.max(initial=0.0, keepdims=True)
    else:  # groups of a ConvTranspose lie behind each other
        largest = largest.reshape(-1, len(weights.scale)).max(axis=0)
    needed = largest / data.scale[0] / LARGEST_BIAS
    scales = tuple(
        s if n <= s else float(np.nextafter(np.float32(n), np.float32(np.inf)))
        for s, n in zip(weights.scale, needed, strict=True)
    )
    return QuantParams(scales, weights.zero_point, weights.dtype, weights.axis)


def limit_weight_params(
    data: QuantParams, weights: QuantParams, output: QuantParams
) -> QuantParams:
    """Weight parameters with which one step of input times weight is below 256 steps of output.

    Integer kernels refuse more (XNNPACK's requantization). It happens where a channel reads what
    is zero throughout the calibration set: any other input fills the whole output range, with
    these parameters as with those; the channel's weights then saturate.
    """
    largest = _MOST_OUTPUT_STEPS * output.scale[0] / data.scale[0]
    scales = tuple(min(s, float(np.float32(largest))) for s in weights.scale)
    return QuantParams(scales, weights.zero_point, weights.dtype, weights.axis)


def quantize_weights_to(params: QuantParams, weights: FloatArray) -> Array:
    """The integers of symmetric weights: nearest, ties to even, within 127 steps of zero."""
    lowest = -127 if params.dtype == "int8" else 1
    return np.asarray(np.maximum(params.quantize(weights), np.dtype(params.dtype).type(lowest)))


def quantize_bias(bias: FloatArray, params: QuantParams) -> Array:
    """The int32 integers of a bias: nearest, ties to even.

    Raises:
        DataError: a bias beyond int32 at these scales (`fit_weight_params` prevents that).
    """
    # float64: a float32 quotient is off by up to 2**6 steps near the ends of int32.
    steps = np.rint(np.asarray(bias, dtype=np.float64) / np.asarray(params.scale))
    info = np.iinfo(np.int32)
    outside = (steps < info.min) | (steps > info.max) | ~np.isfinite(steps)
    if outside.any():
        raise DataError(
            f"a bias of {np.abs(bias).max():.6g} at a scale of {min(params.scale):.6g}",
            expected="one that fits into int32",
        )
    return np.asarray(steps, dtype=np.int32)


def _usable_scale(scale: float) -> float:
    """As float32, in which runtimes hold it; 1 for zero; at least the smallest normal."""
    if scale == 0.0:
        return 1.0
    return max(float(np.float32(scale)), SMALLEST_SCALE)
