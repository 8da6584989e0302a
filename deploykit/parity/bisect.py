"""Which layer of a file a runtime computes wrongly: a kernel fault told from rounding.

The same file runs on the runtime in question and on one that is trusted, and all values are
compared. Rounding grows from layer to layer, so that a value far off says little. A layer is
suspected where its result is off beyond the limit and several times further than what it reads;
then it runs alone, on both runtimes, given the trusted runtime's values: what is off there beyond
the limit was made by this layer's kernel. float16 arithmetic alone moves a result by less than
6e-3 of its range, and sums of integers by a step or two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from deploykit.file_layers import CutLayer
from deploykit.parity.metrics import error_over_range
from deploykit.runners.base import Runner
from deploykit.temporary import scratch_folder
from deploykit.tensors import Array

#: Share of a value's range: that of a layer's own error (`deploykit.parity.limits`).
LIMIT = 2e-2
#: A suspect's error over that of what it reads.
_JUMP = 3.0
#: Layers that are run alone: each may start an emulator.
_MOST_SUSPECTS = 8


@dataclass(frozen=True)
class Bisection:
    """What was found.

    Attributes:
        cause: ``agrees``, ``rounding`` or ``kernel fault``.
        worst: Largest error of a value in the whole file, over the value's range.
        worst_value: Whose.
        layer: The first layer whose kernel is wrong; None if there is none.
        alone: Its error by itself, over the range.
        mended: The same with the format's work-around; None where there is none.
        cut: It, as a file of its own; see `CutLayer`.
        tried: Names of the layers that were run alone.
    """

    cause: str
    worst: float
    worst_value: str
    layer: str | None = None
    alone: float | None = None
    mended: float | None = None
    cut: CutLayer | None = None
    tried: tuple[str, ...] = ()

    @property
    def workaround(self) -> str:
        """The format's work-around where it was seen to help; empty if not."""
        helps = self.cut is not None and self.mended is not None and self.mended <= LIMIT
        return self.cut.workaround if self.cut is not None and helps else ""


def bisect_file(
    path: Path,
    layers: Sequence[CutLayer],
    inputs: Mapping[str, Array],
    *,
    suspected: Callable[[Path], Runner],
    trusted: Callable[[Path], Runner],
    limit: float = LIMIT,
) -> Bisection:
    """Find the first layer that a runtime computes wrongly.

    Args:
        path: The file.
        layers: Its layers, in an order in which values are made before they are read.
        inputs: One sample, in the file's own shapes and dtypes.
        suspected: Opens a file in the runtime in question.
        trusted: Opens it in the runtime that is held right.
        limit: Error over the range beyond which a layer by itself is wrong.

    Raises:
        RunnerError: a runtime refused, crashed, took too long, or gives outputs only.
    """
    with suspected(path) as runner:
        found = runner.run_all(inputs)
    with trusted(path) as runner:
        right = {**inputs, **runner.run_all(inputs)}
    errors = {name: _error(found[name], right[name]) for name in found if name in right}
    worst = max(errors, key=lambda name: errors[name])
    result = Bisection("agrees", errors[worst], worst)
    if errors[worst] <= limit:
        return result
    tried: list[str] = []
    for layer in list(_suspects(layers, errors, limit))[:_MOST_SUSPECTS]:
        if not all(name in right for name in layer.inputs):
            continue
        tried.append(layer.name)
        given = {name: right[name] for name in layer.inputs}
        alone = _error_alone(layer.files, given, suspected, trusted)
        if alone > limit:
            mended = None
            if layer.mended:
                mended = _error_alone(layer.mended, given, suspected, trusted)
            return replace(
                result,
                cause="kernel fault",
                layer=layer.name,
                alone=alone,
                mended=mended,
                cut=layer,
                tried=tuple(tried),
            )
    return replace(result, cause="rounding", tried=tuple(tried))


def _suspects(
    layers: Sequence[CutLayer], errors: Mapping[str, float], limit: float
) -> Iterator[CutLayer]:
    for layer in layers:
        own = max((errors.get(name, 0.0) for name in layer.outputs), default=0.0)
        before = max((errors.get(name, 0.0) for name in layer.inputs), default=0.0)
        if layer.files and own > limit and own > _JUMP * before:
            yield layer


def _error_alone(
    files: Mapping[str, bytes],
    inputs: Mapping[str, Array],
    suspected: Callable[[Path], Runner],
    trusted: Callable[[Path], Runner],
) -> float:
    with scratch_folder() as folder:
        path = write_layer(Path(folder), "layer", files)
        with suspected(path) as runner:
            found = runner.run(inputs)
        with trusted(path) as runner:
            right = runner.run(inputs)
    return max(_error(found[name], right[name]) for name in right)


def write_layer(folder: Path, stem: str, files: Mapping[str, bytes]) -> Path:
    """Write a layer's files into a folder; the path of the one that is opened."""
    for suffix, content in files.items():
        (folder / f"{stem}{suffix}").write_bytes(content)
    return folder / f"{stem}{next(iter(files))}"


def _error(found: Array, right: Array) -> float:
    """Largest difference over the range of what is right; infinite where shapes differ."""
    if found.shape != right.shape or not np.isfinite(found).all():
        return float("inf")
    if not right.size:
        return 0.0
    wanted = right.astype(np.float64)
    largest = float(np.abs(found.astype(np.float64) - wanted).max())
    width = max(float(wanted.max()), 0.0) - min(float(wanted.min()), 0.0)
    return error_over_range(largest, 0.0, width) if width else (float("inf") if largest else 0.0)
