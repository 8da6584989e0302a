"""Quantization noise: one output against the float reference's (`deploykit.parity.limits`)."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from deploykit.parity import metrics
from deploykit.parity.limits import PrecisionLimits
from deploykit.tensors import FloatArray
from deploykit.verdict import Check, Question

#: A sample whose largest output is below this share of the largest of all samples is faint.
_FAINT = 1e-3
#: So many samples decide by their classes, or none does.
LEAST_CLEAR = 8
#: Without a limit of noise, what is allowed is what warns by default.
_WARN_DB = 10.0


def noise_checks(
    value: str,
    actual: FloatArray,
    expected: FloatArray,
    limits: PrecisionLimits,
    *,
    most: float | None,
    step: float,
) -> list[Check]:
    """How far an output is from the float reference's.

    Args:
        value: Its name.
        actual: What the artefact gave, (n, ...).
        expected: What the reference gave.
        limits: Of the precision.
        most: The limit of the largest error over the range.
        step: Step of the output's integers; 0 for floats.

    Raises:
        ParityError: arrays that cannot be compared.
    """
    question = Question.QUANTIZATION
    error = metrics.max_error_over_range(actual, expected)
    checks = [Check(question, value, "max_error_over_range", error, most, at_most=True)]
    kept = _not_faint(expected, step)
    a, e = actual[kept], expected[kept]
    if not len(e):
        return checks
    for metric, measured in (
        ("snr_db", metrics.snr_db(a, e)),
        ("cosine", metrics.worst_cosine(a, e)),
    ):
        limit, warn = getattr(limits, metric), getattr(limits, f"warn_{metric}")
        checks.append(Check(question, value, metric, measured, limit, False, warn))
    if e.ndim == 2 and e.shape[1] > 1:  # classes: elsewhere "the largest" means nothing
        checks += _agreements(value, a, e, limits)
    return checks


def _agreements(
    value: str, actual: FloatArray, expected: FloatArray, limits: PrecisionLimits
) -> list[Check]:
    """Agreement of all samples, and of those whose class is clear."""
    question = Question.QUANTIZATION
    everywhere = metrics.top1_agreement(actual, expected)
    count = len(expected)
    checks = [
        Check(
            question,
            value,
            "top1_agreement",
            everywhere,
            limits.top1_agreement,
            at_most=False,
            samples=count,
        )
    ]
    clear = clear_samples(actual, expected, warn_db=limits.warn_snr_db)
    count = int(clear.sum())
    if count:
        enough = count >= LEAST_CLEAR
        share = metrics.top1_agreement(actual[clear], expected[clear])
        checks.append(
            Check(
                question,
                value,
                "clear_top1_agreement",
                share,
                limits.clear_top1_agreement if enough else None,
                at_most=False,
                warn_limit=limits.warn_clear_top1_agreement if enough else None,
                samples=count,
            )
        )
    return checks


def clear_samples(
    actual: FloatArray, expected: FloatArray, *, warn_db: float | None = None
) -> npt.NDArray[np.bool_]:
    """The samples whose class in the reference is clear beside the noise.

    A sample is clear if its margin, the largest score less the second, exceeds ``sqrt(2)`` times
    the noise of a score: a margin is the difference of two scores. The noise is measured, as the
    root mean square of the error about each sample's own mean, since what all classes share changes
    no class; it counts at most as much as the warning limit of the signal-to-noise ratio allows.

    Args:
        actual: (n, classes), at least 2 of them.
        expected: Likewise.
        warn_db: That limit; None for 10 dB.

    Returns:
        bool (n,).
    """
    scores = np.asarray(expected, np.float64)
    best = np.sort(scores, axis=1)
    errors = np.asarray(actual, np.float64) - scores
    measured = _spread(errors) if np.isfinite(errors).all() else math.inf
    allowed = _spread(scores) * 10.0 ** (-(_WARN_DB if warn_db is None else warn_db) / 20.0)
    clear: npt.NDArray[np.bool_] = best[:, -1] - best[:, -2] > math.sqrt(2.0) * min(
        measured, allowed
    )
    return clear


def _spread(rows: npt.NDArray[np.float64]) -> float:
    """Root mean square of what is left when each row's mean is taken off."""
    return float(np.sqrt(np.square(rows - rows.mean(axis=1, keepdims=True)).mean()))


def _not_faint(expected: FloatArray, step: float) -> npt.NDArray[np.bool_]:
    """The samples whose output is more than nearly zero.

    Direction and noise ratio of an output that is nothing beside the others' (a detector on an
    empty image), or less than one step of its integers, say nothing: its error over the range of
    all samples does.
    """
    axes = tuple(range(1, expected.ndim))
    peaks = np.abs(expected).max(axis=axes) if axes else np.abs(expected)
    if not peaks.any():  # all zero: the metrics know what to say of that
        return np.ones(len(peaks), dtype=bool)
    kept: npt.NDArray[np.bool_] = peaks > max(_FAINT * float(peaks.max()), step)
    return kept
