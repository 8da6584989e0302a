"""From the statistics of a value to the range that is quantized."""

from __future__ import annotations

import numpy as np

from deploykit.calibration.table import ValueStatistics
from deploykit.tensors import Array
from deploykit_quantize.arithmetic import params_from_range
from deploykit_quantize.policy import Observer, TensorRule

_SHRINKAGES = np.linspace(1.0, 0.2, 33)
_ROUNDS = 3


def choose_range(
    statistics: ValueStatistics, observer: Observer, rule: TensorRule
) -> tuple[float, float]:
    """The range to quantize.

    ``minmax``: all that was seen. ``percentile``: the central ``percentile`` percent of the
    elements, by linear interpolation inside of the bins. ``mse``: the range with the least mean
    squared error over the histogram, found by shrinking the two ends in turn (from 100 % to 20 %
    in steps of 2.5 %, three rounds); for a symmetric rule both ends together.

    Returns:
        (low, high), no wider than what was seen and zero together. It need not contain zero.
    """
    low, high = statistics.minimum, statistics.maximum
    if observer.method == "minmax" or low == high or not sum(statistics.histogram):
        return low, high
    counts = np.asarray(statistics.histogram, dtype=np.float64)
    edges = np.linspace(low, high, counts.size + 1)
    if observer.method == "percentile":
        return _central_range(counts, edges, observer.percentile)
    return _least_error_range(counts, edges, rule)


def _central_range(counts: Array, edges: Array, percentile: float) -> tuple[float, float]:
    share = np.concatenate([[0.0], np.cumsum(counts)]) / counts.sum()
    tail = (1.0 - percentile / 100.0) / 2.0
    low, high = np.interp([tail, 1.0 - tail], share, edges)
    return float(low), float(high)


def _least_error_range(counts: Array, edges: Array, rule: TensorRule) -> tuple[float, float]:
    centres = (edges[:-1] + edges[1:]) / 2
    # Zero is exact under every range: a bin that holds it (the peak behind a Relu) has no error.
    centres[(edges[:-1] <= 0) & (edges[1:] >= 0)] = 0.0
    seen = counts > 0
    centres, counts = centres[seen].astype(np.float32), counts[seen]
    low, high = min(float(edges[0]), 0.0), max(float(edges[-1]), 0.0)

    def error(low: float, high: float) -> float:
        params = params_from_range(low, high, rule)
        difference = params.dequantize(params.quantize(centres)).astype(np.float64) - centres
        return float((counts * difference**2).sum())

    if rule.symmetric:
        errors = [error(low * s, high * s) for s in _SHRINKAGES]
        best = float(_SHRINKAGES[int(np.argmin(errors))])
        return low * best, high * best
    best_low, best_high = low, high
    for _ in range(_ROUNDS):
        before = (best_low, best_high)
        if low < 0:
            errors = [error(low * s, best_high) for s in _SHRINKAGES]
            best_low = low * float(_SHRINKAGES[int(np.argmin(errors))])
        if high > 0:
            errors = [error(best_low, high * s) for s in _SHRINKAGES]
            best_high = high * float(_SHRINKAGES[int(np.argmin(errors))])
        if (best_low, best_high) == before:
            break
    return best_low, best_high
