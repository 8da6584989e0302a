"""Golden inputs: the few samples on which everything is compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from deploykit.errors import ContractError
from deploykit.model import Model
from deploykit.preprocess import Preprocess
from deploykit.tensors import FloatArray, TensorSpec

if TYPE_CHECKING:
    from deploykit.calibration.data import CalibrationData

_Doubles = npt.NDArray[np.float64]

_SEED = 20240229
#: Rows and columns of the grids that a synthetic image is blended from, coarse to fine, and how
#: much each weighs: natural images hold most of their power in low frequencies.
_GRIDS = ((3, 0.5), (6, 0.25), (12, 0.15), (24, 0.1))
_COLOR_SHARE = 0.35


#: So many samples are verified on, where there are as many.
SAMPLES = 64
#: At most so many are kept in the bundle, which goes into an app.
MOST_KEPT = 16


def make_golden_inputs(
    model: Model, data: CalibrationData | None, count: int | None = None
) -> dict[str, FloatArray]:
    """Input name → ``count`` samples, float32 (count, ...), in NCHW or plain.

    The first `MOST_KEPT` are evenly spread over all of them, so that they can stand for the rest.

    Args:
        model: Any stage; its inputs and its preprocessing contract count.
        data: Real samples: evenly spaced ones are taken, all of them if there are fewer than
            ``count``. None for synthetic ones: smooth images within the range of the contract
            (0..1 without one), and uniform numbers in -1..1 for inputs that are no images. They
            are the same on every machine.
        count: Number of samples, at least 1; None for `SAMPLES`, and `MOST_KEPT` synthetic ones.

    Raises:
        ContractError: no sample is asked for.
    """
    if count is None:
        count = MOST_KEPT if data is None else SAMPLES
    if count < 1:
        raise ContractError(f"{count} golden inputs", expected="at least one")
    if data is None:
        return {
            spec.name: np.stack(
                [_synthetic_sample(spec, model.preprocess, i, s) for s in range(count)]
            )
            for i, spec in enumerate(model.inputs)
        }
    return _evenly_spaced(data, count)


def _evenly_spaced(data: CalibrationData, count: int) -> dict[str, FloatArray]:
    taken = min(count, data.count)
    wanted = _middles(data.count, taken)
    first = _middles(taken, min(taken, MOST_KEPT))
    order = [*first, *sorted(set(range(taken)) - set(first))]
    samples = [data.read(wanted[index]) for index in order]
    return {
        name: np.stack([sample[name] for sample in samples]).astype(np.float32, copy=False)
        for name in samples[0]
    }


def _middles(count: int, taken: int) -> list[int]:
    """The middle of each of ``taken`` equal spans of ``count`` samples: none comes twice."""
    return [(2 * i + 1) * count // (2 * taken) for i in range(taken)]


class _Uniform:
    """Uniform numbers in 0..1 from the raw bits of PCG64, whose stream numpy promises to keep."""

    def __init__(self, *key: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(key))

    def take(self, *shape: int) -> _Doubles:
        raw = self._bits.random_raw(int(np.prod(shape)))
        values: _Doubles = ((raw >> np.uint64(11)).astype(np.float64) * 2.0**-53).reshape(shape)
        return values


def _synthetic_sample(
    spec: TensorSpec, preprocess: Preprocess | None, index: int, sample: int
) -> FloatArray:
    """One sample, without the batch axis. Sums and products only, which round alike everywhere."""
    uniform = _Uniform(_SEED, index, sample)
    shape = spec.shape[1:]
    if spec.layout != "NCHW":
        return (uniform.take(*shape) * 2.0 - 1.0).astype(np.float32)
    channels, height, width = shape
    grey = _smooth_plane(uniform, height, width)
    planes = [
        grey * (1.0 - _COLOR_SHARE) + _smooth_plane(uniform, height, width) * _COLOR_SHARE
        for _ in range(channels)
    ]
    image = np.stack(planes)
    if preprocess is not None and preprocess.channels == channels:
        mean = np.asarray(preprocess.mean, dtype=np.float64)[:, None, None]
        std = np.asarray(preprocess.std, dtype=np.float64)[:, None, None]
        image = (image - mean) / std
    return image.astype(np.float32)


def _smooth_plane(uniform: _Uniform, height: int, width: int) -> _Doubles:
    """Blended grids of random numbers, (height, width), stretched to 0..1."""
    plane = np.zeros((height, width))
    for cells, weight in _GRIDS:
        grid = uniform.take(cells, cells)
        plane = plane + _stretched(_stretched(grid, height).T, width).T * weight
    low, high = plane.min(), plane.max()
    return (plane - low) / (high - low) if high > low else plane


def _stretched(grid: _Doubles, length: int) -> _Doubles:
    """Linear interpolation of axis 0 to ``length`` points."""
    position = np.arange(length, dtype=np.float64) * (len(grid) - 1) / max(length - 1, 1)
    below = np.minimum(position.astype(np.int64), len(grid) - 2)
    share = (position - below)[:, None]
    stretched: _Doubles = grid[below] * (1.0 - share) + grid[below + 1] * share
    return stretched
