"""Calibration sets that cannot be right: what is refused and what is warned of.

A wrong set does not fail: it gives scales that ruin the artefact without a word. Refused are:

1.  NaN and infinity, and a set with one value throughout or one image throughout.
2.  Under a preprocessing contract: values that lie outside of what any image can give, by more
    than half of that range's width (a set that was not normalised, or twice).
3.  White noise, unless it is insisted upon. Neighbouring pixels of images are alike, those of
    noise are not: let r be the correlation of horizontal and vertical neighbours, pooled over all
    rows, columns, channels and samples after each channel's mean is taken off; |r| < 0.1 is noise.
    Photographs reach 0.9, noise of n pixels stays within about 2 / sqrt(n).

Warned of: values outside of the contract's range by more than 1 %, a mean or deviation that
images do not have under the contract, fewer than 16 samples, blank samples, duplicates.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from deploykit.errors import DataError
from deploykit.preprocess import Preprocess
from deploykit.tensors import FloatArray

#: Fewer samples than this are warned of.
FEW_SAMPLES = 16
#: Correlation of neighbours below which a set is taken for noise.
NOISE_CORRELATION = 0.1

#: What sets of images have, in units of an image scaled to 0..1 (a set with half of its pixels
#: black and half white has a deviation of 0.5, the largest there is).
_IMAGE_MEANS = (0.08, 0.92)
_IMAGE_STDS = (0.09, 0.5)


@dataclass(frozen=True)
class DataStatistics:
    """What a calibration set looks like.

    Attributes:
        samples: Number of samples.
        minimum: Smallest element.
        maximum: Largest element.
        channel_means: Mean of each channel; of everything where the input is no image.
        channel_stds: Deviation of each channel, likewise.
        neighbour_correlation: See the module's docstring; None where there are no neighbours, or
            nothing varies.
        blank: Number of samples whose elements are all equal.
        distinct: Number of samples that differ from each other.
    """

    samples: int
    minimum: float
    maximum: float
    channel_means: tuple[float, ...]
    channel_stds: tuple[float, ...]
    neighbour_correlation: float | None
    blank: int
    distinct: int


@dataclass
class DataObserver:
    """Gathers `DataStatistics` sample by sample, and the fingerprint of the data."""

    _digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    _seen: Counter[bytes] = field(default_factory=Counter)
    _low: float = np.inf
    _high: float = -np.inf
    _blank: int = 0
    _moments: FloatArray | None = None
    _elements: int = 0
    _covariance: float = 0.0
    _variance: float = 0.0

    @property
    def seen(self) -> int:
        """How many samples were taken in."""
        return sum(self._seen.values())

    def add(self, sample: FloatArray) -> None:
        """Take in one sample, (C, H, W) or of any other shape.

        Raises:
            DataError: it holds NaN or infinity.
        """
        number = self.seen
        low, high = float(sample.min()), float(sample.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise DataError(
                f"sample {number} of the calibration set holds NaN or infinity",
                expected="finite float32",
            )
        raw = np.ascontiguousarray(sample).tobytes()
        self._digest.update(raw)
        self._seen[hashlib.sha256(raw).digest()] += 1
        self._low, self._high = min(self._low, low), max(self._high, high)
        self._blank += sample.ndim == 3 and low == high
        channels = sample.reshape(sample.shape[0] if sample.ndim == 3 else 1, -1)
        moments = np.stack(
            [channels.sum(axis=1, dtype=np.float64), (channels.astype(np.float64) ** 2).sum(axis=1)]
        )
        self._moments = moments if self._moments is None else self._moments + moments
        self._elements += channels.shape[1]
        if sample.ndim == 3 and min(sample.shape[1:]) >= 4:
            self._add_neighbours(sample)

    def result(self) -> DataStatistics:
        """The statistics so far.

        Raises:
            DataError: there was no sample.
        """
        if self._moments is None:
            raise DataError("the calibration set is empty", expected="at least one sample")
        means, squares = self._moments / self._elements
        stds = np.sqrt(np.maximum(squares - means**2, 0.0))
        return DataStatistics(
            samples=self.seen,
            minimum=self._low,
            maximum=self._high,
            channel_means=tuple(float(m) for m in means),
            channel_stds=tuple(float(s) for s in stds),
            neighbour_correlation=self._covariance / self._variance if self._variance else None,
            blank=self._blank,
            distinct=len(self._seen),
        )

    def fingerprint(self) -> str:
        """SHA-256 over the samples so far, in order: float32, little-endian, C order."""
        return self._digest.hexdigest()

    def _add_neighbours(self, sample: FloatArray) -> None:
        centred = sample - sample.mean(axis=(1, 2), keepdims=True, dtype=np.float64)
        for one, other in (
            (centred[:, :, :-1], centred[:, :, 1:]),
            (centred[:, :-1], centred[:, 1:]),
        ):
            self._covariance += float((one * other).sum())
            self._variance += float(((one**2).sum() + (other**2).sum()) / 2)


@dataclass
class SetObserver:
    """Gathers what each input of a network is given, sample by sample."""

    _inputs: dict[str, DataObserver] = field(default_factory=dict)
    _seen: Counter[bytes] = field(default_factory=Counter)

    @property
    def seen(self) -> int:
        """How many samples were taken in."""
        return sum(self._seen.values())

    def add(self, sample: Mapping[str, FloatArray]) -> None:
        """Take in one sample: input name → its array.

        Raises:
            DataError: it holds NaN or infinity.
        """
        for name, array in sample.items():
            self._inputs.setdefault(name, DataObserver()).add(array)
        digest = hashlib.sha256()
        for _, array in sorted(sample.items()):
            digest.update(np.ascontiguousarray(array).tobytes())
        self._seen[digest.digest()] += 1

    def fingerprint(self) -> str:
        """SHA-256 over the samples: of one input as `DataObserver` says, of several over theirs."""
        prints = [f"{name} {one.fingerprint()}" for name, one in sorted(self._inputs.items())]
        if len(prints) == 1:
            return prints[0].rpartition(" ")[2]
        return hashlib.sha256("\n".join(prints).encode()).hexdigest()

    def check(
        self, contracts: Mapping[str, Preprocess], *, allow_suspicious: bool = False
    ) -> tuple[str, ...]:
        """`check_data` of each input; the warnings.

        One of several inputs may hold one value throughout (the size of an image, a threshold):
        that is a warning, unless all of them do.

        Args:
            contracts: Input name → its preprocessing contract, of those that are images.
            allow_suspicious: As in `check_data`.

        Raises:
            DataError: as `check_data` says.
        """
        if not self._inputs:
            raise DataError("the calibration set is empty", expected="at least one sample")
        statistics = {name: one.result() for name, one in self._inputs.items()}
        if len(statistics) == 1:
            ((name, found),) = statistics.items()
            return check_data(found, contracts.get(name), allow_suspicious=allow_suspicious)
        warnings: list[str] = []
        varies = {name for name, found in statistics.items() if _varies(found)}
        for name, found in statistics.items():
            if varies and name not in varies:
                warnings.append(f"input '{name}' holds the same in every calibration sample")
                continue
            told = check_data(
                replace(found, distinct=len(self._seen)),
                contracts.get(name),
                allow_suspicious=allow_suspicious,
                origin=f" for input '{name}'",
            )
            warnings += told
        return tuple(dict.fromkeys(warnings))


def _varies(statistics: DataStatistics) -> bool:
    several = statistics.samples == 1 or statistics.distinct > 1
    return several and statistics.minimum != statistics.maximum


def check_data(
    statistics: DataStatistics,
    preprocess: Preprocess | None,
    *,
    allow_suspicious: bool = False,
    origin: str = "",
) -> tuple[str, ...]:
    """Refuse a set that cannot be right, and say what is odd about others.

    Args:
        statistics: Of the whole set, for one input.
        preprocess: The contract of the input, if it is an image.
        allow_suspicious: Warn of noise and of values outside of the contract's range instead of
            refusing them.
        origin: Of which of several inputs, in words that follow "the calibration set".

    Returns:
        Warnings, in words.

    Raises:
        DataError: see the module's docstring.
    """
    if statistics.minimum == statistics.maximum:
        raise DataError(
            f"every element of the calibration set{origin} is {statistics.minimum:.6g}",
            expected="real inputs of the network",
        )
    if statistics.blank == statistics.samples:
        raise DataError(
            f"every sample of the calibration set{origin} is blank (all of its elements are equal)",
            expected="real inputs of the network",
        )
    if statistics.samples > 1 and statistics.distinct == 1:
        raise DataError(
            f"all {statistics.samples} samples of the calibration set{origin} are the same",
            expected="different inputs, as the network meets them",
        )
    suspicions = _find_suspicions(statistics, preprocess, origin)
    if suspicions and not allow_suspicious:
        first = suspicions[0]
        raise DataError(first[0], expected=first[1], advice=first[2])
    return (*(found for found, _, _ in suspicions), *_find_oddities(statistics, preprocess, origin))


def _find_suspicions(
    statistics: DataStatistics, preprocess: Preprocess | None, origin: str
) -> list[tuple[str, str, str]]:
    """(found, expected, advice) of what is refused unless it is insisted upon."""
    suspicions = []
    if preprocess is not None:
        low, high = preprocess.tensor_range
        excess = max(low - statistics.minimum, statistics.maximum - high)
        reach = f"{statistics.minimum:.4g} to {statistics.maximum:.4g}"
        if excess > 0.5 * (high - low):
            suspicions.append(
                (
                    f"the calibration set{origin} reaches from {reach}",
                    f"{low:.4g} to {high:.4g}, which the preprocessing contract gives for images",
                    "give uint8 images, which go through the contract, or normalise the arrays",
                )
            )
    r = statistics.neighbour_correlation
    if r is not None and abs(r) < NOISE_CORRELATION:
        suspicions.append(
            (
                f"the calibration set{origin} is white noise: neighbours correlate by {r:.3f}",
                "real images, whose neighbouring pixels are alike (typically above 0.8)",
                "give images that the network was made for; scales from noise ruin it",
            )
        )
    return suspicions


def _find_oddities(
    statistics: DataStatistics, preprocess: Preprocess | None, origin: str
) -> list[str]:
    """What is only warned of."""
    warnings = []
    if statistics.samples < FEW_SAMPLES:
        warnings.append(
            f"only {statistics.samples} calibration sample(s): {FEW_SAMPLES} to a few hundred give "
            "ranges to rely on"
        )
    if statistics.distinct < statistics.samples:
        warnings.append(
            f"{statistics.samples - statistics.distinct} of {statistics.samples} calibration "
            "samples are duplicates"
        )
    if statistics.blank:
        warnings.append(f"{statistics.blank} calibration sample(s){origin} are blank")
    if preprocess is None:
        return warnings
    low, high = preprocess.tensor_range
    excess = max(low - statistics.minimum, statistics.maximum - high)
    if 0.01 * (high - low) < excess <= 0.5 * (high - low):
        warnings.append(
            f"the calibration set{origin} reaches from {statistics.minimum:.4g} to "
            f"{statistics.maximum:.4g}, images under the contract from {low:.4g} to {high:.4g}"
        )
    if len(preprocess.mean) == len(statistics.channel_means):
        warnings.extend(_find_odd_channels(statistics, preprocess))
    return warnings


def _find_odd_channels(statistics: DataStatistics, preprocess: Preprocess) -> list[str]:
    # Back to images of 0..1, for which it is known what is usual.
    scale = np.asarray(preprocess.std)
    means = np.asarray(statistics.channel_means) * scale + np.asarray(preprocess.mean)
    stds = np.asarray(statistics.channel_stds) * scale
    warnings = []
    for what, values, (low, high) in (
        ("mean", means, _IMAGE_MEANS),
        ("standard deviation", stds, _IMAGE_STDS),
    ):
        if values.min() < low or values.max() > high:
            shown = ", ".join(f"{v:.3f}" for v in values)
            warnings.append(
                f"the calibration set's {what} per channel, taken back to images of 0..1, is "
                f"{shown}: images have {low} to {high}; is it normalised as the contract says?"
            )
    return warnings
