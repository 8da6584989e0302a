"""Samples that Python brings, each taken out of what holds it: batches, pairs with labels, tensors.

A DataLoader gives batches ``(images, labels)``, a dataset gives pairs ``(image, label)``; a network
reads images alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from deploykit.errors import DataError
from deploykit.limits import current_limits
from deploykit.tensors import Array, TensorSpec


def is_array(given: object) -> bool:
    """Whether it is one array of all samples: of numpy, or what becomes one (a tensor)."""
    return hasattr(given, "shape") and hasattr(given, "dtype")


def gives_batches(given: object) -> bool:
    """Whether it is a DataLoader: batches of a stated size, over a dataset."""
    return hasattr(given, "batch_size") and hasattr(given, "dataset")


def array_of(given: Any) -> Array:
    """A tensor or array as an array of numpy.

    Raises:
        DataError: it holds no numbers.
    """
    detached = given.detach().cpu() if hasattr(given, "detach") else given
    array: Array = np.asarray(detached)
    if array.dtype.kind not in "biuf":
        raise DataError(f"calibration data of dtype {array.dtype}", expected="numbers")
    return array


def without_label(sample: Any) -> Any:
    """The image of a pair ``(image, label)``; anything else as it is."""
    return sample[0] if isinstance(sample, (tuple, list)) and sample else sample


def samples_of_batches(
    batches: Iterable[Any], inputs: Sequence[TensorSpec], limit: int | None
) -> list[Any]:
    """The samples of a DataLoader, one by one; no more batches are read than are needed."""
    most = limit if limit is not None else current_limits().samples + 1
    return list(islice(_each(batches, inputs), most))


def _each(batches: Iterable[Any], inputs: Sequence[TensorSpec]) -> Iterator[Any]:
    for batch in batches:
        held = without_label(batch)
        if isinstance(held, Mapping):
            arrays = {spec.name: array_of(held[spec.name]) for spec in inputs if spec.name in held}
            for index in range(min(map(len, arrays.values()), default=0)):
                yield {name: array[index] for name, array in arrays.items()}
            continue
        yield from array_of(held)
