"""How far two arrays are apart.

All take float arrays of the same shape, ``actual`` first, and compute in float64. An ``actual``
that holds NaN or infinity gives the worst value that the metric has, or NaN: it passes no limit.

Raises, all of them:
    ParityError: other shapes, nothing to compare, or an ``expected`` that is not finite, with
        which nothing can be compared.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from deploykit.errors import ParityError
from deploykit.tensors import Array, QuantParams

_Doubles = npt.NDArray[np.float64]

#: Steps this near to a whole number are that number: reals on a float32 grid are off by about
#: 256 * 2**-24 steps, which must not turn 2 steps into 2.00002.
_STEP_SLACK = 1e-3


def _pair(actual: Array, expected: Array) -> tuple[_Doubles, _Doubles]:
    if actual.shape != expected.shape:
        raise ParityError(
            f"a result of shape {tuple(actual.shape)}", expected=f"shape {tuple(expected.shape)}"
        )
    if actual.size == 0:
        raise ParityError("an empty result", expected="at least one element to compare")
    reference = np.asarray(expected, dtype=np.float64)
    if not np.isfinite(reference).all():
        raise ParityError(
            "the reference holds NaN or infinity: nothing can be compared with it",
            advice="look for what overflows in the source model on these inputs",
        )
    return np.asarray(actual, dtype=np.float64), reference


def max_error_over_range(actual: Array, expected: Array) -> float:
    """Largest difference over the width of the reference's range.

    ``max |a - e| / (max e - min e)``. A reference that is one constant has no width, and its
    magnitude serves: ``max |a - e| / |e|``; where it is zero everywhere, the result is 0 for an
    exact zero and infinity for anything else.
    """
    result, reference = _pair(actual, expected)
    low, high = float(reference.min()), float(reference.max())
    return error_over_range(_max_difference(result, reference), low, high)


def error_over_range(max_difference: float, low: float, high: float) -> float:
    """`max_error_over_range` from its parts: largest difference and the reference's extremes."""
    width = high - low or abs(high)
    if width:
        return max_difference / width
    return 0.0 if max_difference == 0 else math.inf


def _max_difference(result: _Doubles, reference: _Doubles) -> float:
    if not np.isfinite(result).all():
        return math.inf
    return float(np.abs(result - reference).max())


def snr_db(actual: Array, expected: Array) -> float:
    """Signal to noise in dB: ``10 log10(sum e^2 / sum (a - e)^2)``.

    Infinity without any noise; minus infinity for noise upon a reference of zeros.
    """
    result, reference = _pair(actual, expected)
    if not np.isfinite(result).all():
        return -math.inf
    # Scaled first, so that squares neither overflow nor vanish.
    scale = max(float(np.abs(reference).max()), float(np.abs(result).max())) or 1.0
    signal = float(np.square(reference / scale).sum())
    noise = float(np.square((result - reference) / scale).sum())
    return ratio_db(signal, noise)


def ratio_db(signal: float, noise: float) -> float:
    """``10 log10(signal / noise)`` of two powers, with the two infinities of `snr_db`."""
    if not math.isfinite(noise):
        return -math.inf
    if noise == 0:
        return math.inf
    return 10.0 * (math.log10(signal) - math.log10(noise)) if signal else -math.inf


def cosine(actual: Array, expected: Array) -> float:
    """Cosine of the angle between the two as vectors, -1..1.

    1 if both are zero, 0 if one of them is; NaN for an ``actual`` that is not finite.
    """
    result, reference = _pair(actual, expected)
    if not np.isfinite(result).all():
        return math.nan
    lengths = [float(np.abs(v).max()) for v in (result, reference)]
    if not all(lengths):
        return 1.0 if not any(lengths) else 0.0
    a, e = (result / lengths[0]).ravel(), (reference / lengths[1]).ravel()
    # Normalized one at a time: the product of two long vectors' squares may overflow.
    a, e = a / math.sqrt(float(np.square(a).sum())), e / math.sqrt(float(np.square(e).sum()))
    return float(np.clip((a * e).sum(), -1.0, 1.0))


def worst_cosine(actual: Array, expected: Array) -> float:
    """The smallest `cosine` of any sample (axis 0); NaN if any is not finite."""
    _pair(actual, expected)
    values = [cosine(a, e) for a, e in zip(actual, expected, strict=True)]
    return math.nan if any(math.isnan(v) for v in values) else min(values)


def top1_agreement(actual: Array, expected: Array) -> float:
    """Share of the samples whose largest class is the reference's, 0..1.

    Shapes (n, classes). Integer outputs tie: a sample where k classes tie for the top counts as
    the share of those k that the reference has at its top, which is what a random choice among
    them would give. So an output that is one constant scores 1 / classes, not 1. A sample with
    NaN or infinity disagrees.

    Raises:
        ParityError: also for arrays that are not (n, classes).
    """
    result, reference = _pair(actual, expected)
    if result.ndim != 2:
        raise ParityError(
            f"top-1 agreement of arrays of shape {result.shape}", expected="(samples, classes)"
        )
    finite = np.isfinite(result).all(axis=1, keepdims=True)
    top = (result == result.max(axis=1, keepdims=True)) & finite
    wanted = reference == reference.max(axis=1, keepdims=True)
    shared = (top & wanted).sum(axis=1) / np.maximum(top.sum(axis=1), 1)
    return float(shared.mean())


def max_error_lsb(actual: Array, expected: Array, params: QuantParams) -> float:
    """Largest difference in steps of a quantized tensor: ``max |a - e| / scale``.

    Both are reals (float, dequantized); where there is one scale a channel, ``params.axis`` is
    the axis of these arrays. A count within 0.001 of a whole number is that number.
    """
    result, reference = _pair(actual, expected)
    if not np.isfinite(result).all():
        return math.inf
    scale = np.asarray(params.scale, dtype=np.float32).astype(np.float64)
    if params.axis is not None:
        shape = [1] * result.ndim
        shape[params.axis] = len(params.scale)
        scale = scale.reshape(shape)
    return whole_steps(float((np.abs(result - reference) / scale).max()))


def whole_steps(steps: float) -> float:
    """A count of steps, taken as whole if it is within 0.001 of a whole number."""
    if not math.isfinite(steps):
        return steps
    nearest = float(round(steps))
    return nearest if abs(steps - nearest) <= _STEP_SLACK else steps
