"""Statistics of a stream of numbers in one pass and fixed memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from deploykit.calibration.table import ValueStatistics
from deploykit.tensors import Array, FloatArray

#: Bins of a finished histogram.
BINS = 2048

_FINE_BINS = 2 * BINS
_SMALLEST_EXPONENT = -126


@dataclass
class GrowingHistogram:
    """Counts over bins whose width is a power of two and which doubles as the range grows.

    Bin ``i`` holds ``i * width <= x < (i + 1) * width``. Doubling the width merges bins ``2 i`` and
    ``2 i + 1`` into ``i``, which loses nothing: the counts are those that one pass over all of the
    data with the last width would give.
    """

    _counts: Array = field(default_factory=lambda: np.zeros(_FINE_BINS, dtype=np.int64))
    _first: int = 0
    _exponent: int | None = None

    def cover(self, low: float, high: float) -> None:
        """Make the bins reach from ``low`` to ``high``, besides what they reach already."""
        if self._exponent is None:
            span = max(high - low, max(abs(low), abs(high)) * 2.0**-20)
            wanted = math.frexp(span / (_FINE_BINS - 2))[1] if span > 0 else 0
            self._exponent = max(wanted, _SMALLEST_EXPONENT)
            self._first = self._bin(low)
        used = np.flatnonzero(self._counts)
        first, last = self._bin(low), self._bin(high)
        if used.size:
            first = min(first, self._first + int(used[0]))
            last = max(last, self._first + int(used[-1]))
        while last - first >= _FINE_BINS:
            self._double()
            first, last = first // 2, last // 2
        if first < self._first or last >= self._first + _FINE_BINS:
            counts = np.zeros_like(self._counts)
            used = np.flatnonzero(self._counts)
            counts[used + (self._first - first)] = self._counts[used]
            self._counts, self._first = counts, first

    def add(self, data: FloatArray) -> None:
        """Count elements, all of which must be covered."""
        assert self._exponent is not None
        # A product with a power of two is exact.
        bins = np.floor(data * np.float32(2.0**-self._exponent)).astype(np.int64)
        self._counts += np.bincount(bins - self._first, minlength=_FINE_BINS)

    def resampled(self, low: float, high: float) -> tuple[int, ...]:
        """Counts over `BINS` equal bins from ``low`` to ``high``, which must hold all elements.

        Counts are shared out in proportion where bins overlap; their sum is kept.
        """
        total = int(self._counts.sum())
        if self._exponent is None or low == high:
            return (total,) + (0,) * (BINS - 1)
        edges = (self._first + np.arange(_FINE_BINS + 1)) * 2.0**self._exponent
        below = np.concatenate([[0], np.cumsum(self._counts)])
        wanted = np.rint(np.interp(np.linspace(low, high, BINS + 1), edges, below))
        wanted[0], wanted[-1] = 0, total
        return tuple(int(n) for n in np.diff(wanted))

    def _bin(self, x: float) -> int:
        assert self._exponent is not None
        return math.floor(math.ldexp(x, -self._exponent))

    def _double(self) -> None:
        assert self._exponent is not None
        pairs = np.concatenate([[0], self._counts, [0]]) if self._first % 2 else self._counts
        half = pairs.reshape(-1, 2).sum(axis=1)
        self._counts = np.zeros_like(self._counts)
        self._counts[: half.size] = half
        self._first //= 2
        self._exponent += 1


@dataclass
class RunningStatistics:
    """Minimum, maximum, mean, deviation and histogram of one value over many runs.

    All elements count for minimum, maximum, mean and deviation. The histogram takes every
    ``stride``-th element of each array, about ``histogram_elements`` of them, with a stride that
    has no factor in common with the array's size, so that it visits all rows, columns and channels
    alike.
    """

    histogram_elements: int = 4096
    _low: float = math.inf
    _high: float = -math.inf
    _sum: float = 0.0
    _squares: float = 0.0
    _count: int = 0
    _histogram: GrowingHistogram = field(default_factory=GrowingHistogram)
    _channels: tuple[Array, Array] | None = None

    def add(self, data: FloatArray) -> bool:
        """Take in one array; False, and nothing is taken, if it holds NaN or infinity.

        Axis 1 of a (1, C, H, W) or (1, C) array are its channels.
        """
        flat = data.reshape(-1)
        if not flat.size:
            return True
        channels = data.reshape(data.shape[1] if data.ndim in (2, 4) and len(data) == 1 else 1, -1)
        lows, highs = channels.min(axis=1), channels.max(axis=1)
        low, high = float(lows.min()), float(highs.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            return False
        if data.ndim in (2, 4) and len(data) == 1:
            before = self._channels or (lows, highs)
            self._channels = np.minimum(before[0], lows), np.maximum(before[1], highs)
        self._low, self._high = min(self._low, low), max(self._high, high)
        self._sum += float(flat.sum())
        self._squares += float(np.dot(flat, flat))
        self._count += flat.size
        self._histogram.cover(low, high)
        self._histogram.add(flat[:: choose_stride(flat.size, self.histogram_elements)])
        return True

    def result(self) -> ValueStatistics:
        """The statistics so far; there must be some."""
        mean = self._sum / self._count
        variance = max(self._squares / self._count - mean * mean, 0.0)
        return ValueStatistics(
            minimum=self._low,
            maximum=self._high,
            mean=mean,
            std=math.sqrt(variance),
            histogram=self._histogram.resampled(self._low, self._high),
            count=self._count,
            channel_minimum=tuple(map(float, self._channels[0])) if self._channels else (),
            channel_maximum=tuple(map(float, self._channels[1])) if self._channels else (),
        )


def choose_stride(size: int, wanted: int) -> int:
    """The smallest stride that takes at most ``wanted`` of ``size`` and is coprime to it."""
    stride = -(-size // wanted)
    while math.gcd(stride, size) != 1:
        stride += 1
    return stride
