"""Calibration data by input: for networks with several inputs, and from Python.

What is accepted, besides what `deploykit.calibration.data` says:

1.  An .npz file with one array for each input, under the input's name, each (n, ...).
2.  A folder with one entry for each input: ``NAME/`` with images or with .npy files of one sample
    each, or ``NAME.npy`` with all samples (n, ...). Samples of folders belong together by the
    path below the input's folder, without its suffix; those are the same for every input.
3.  From Python, an iterable of samples: mappings from input name to array, or arrays alone where
    there is one input. An array has the input's shape, with a batch axis of 1 or without it.

float32 and other numbers are what the input reads; uint8 images go through the preprocessing
contract where that makes what the input reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from deploykit.array_file import map_npy, open_npz
from deploykit.calibration.data import CalibrationData, array_reader, check_contract
from deploykit.calibration.image_folder import IMAGE_SUFFIXES, open_image, spread
from deploykit.calibration.python_data import (
    array_of,
    gives_batches,
    is_array,
    samples_of_batches,
    without_label,
)
from deploykit.errors import DataError
from deploykit.limits import check_samples, current_limits
from deploykit.preprocess import Preprocess
from deploykit.tensors import Array, FloatArray, TensorSpec

_ARRAY_SUFFIX = ".npy"
_LISTED = 5
#: float32 holds every integer up to here.
_LARGEST_INTEGER = 2**24

#: A sample from Python: input name → array; an array alone where there is one input.
Sample = Mapping[str, Any] | Any


@dataclass(frozen=True)
class _Source:
    """The samples of one input.

    Attributes:
        count: How many.
        read: Sample number → float32 without the batch axis.
        keys: What tells samples apart, where they are files; empty where their number does.
    """

    count: int
    read: Callable[[int], FloatArray]
    keys: tuple[str, ...] = ()


def load_named_data(
    path: Path,
    inputs: Sequence[TensorSpec],
    preprocess: Preprocess | None,
    limit: int | None = None,
    *,
    skip_unreadable: bool = False,
) -> CalibrationData:
    """The calibration data of a network with several inputs; cases 1 and 2.

    Args:
        path: An .npz file or a folder.
        inputs: The network's inputs, each with the same batch axis first.
        preprocess: The contract, needed for images.
        limit: At most so many samples, spread over the set.
        skip_unreadable: Whether a sample with an image that cannot be decoded is omitted.

    Raises:
        DataError: an input without data, or with other numbers of samples, shapes or dtypes.
        ContractError: images without a contract that fits.
    """
    if path.is_dir():
        sources = {s.name: _source_of_entry(path, s, preprocess) for s in inputs}
    else:
        sources = _sources_of_npz(path, inputs, preprocess)
    _check_counts(sources, path)
    usable = list(range(next(iter(sources.values())).count))
    if skip_unreadable:
        usable = [index for index in usable if _is_readable(sources, index)]
    if not usable:
        raise DataError(f"none of the samples in {path} can be read", expected="at least one")
    chosen = [usable[i] for i in spread(len(usable), limit)]
    return CalibrationData(
        f"{len(chosen)} of {len(usable)} samples of {len(inputs)} inputs in {path.name}",
        len(chosen),
        lambda index: {name: one.read(chosen[index]) for name, one in sources.items()},
    )


def samples_as_data(
    samples: Iterable[Sample],
    inputs: Sequence[TensorSpec],
    limit: int | None = None,
    preprocess: Preprocess | None = None,
) -> CalibrationData:
    """Samples from Python as calibration data; case 3.

    Args:
        samples: They are held in memory, unless they are a sequence. Of a sequence a limit takes
            samples at equal distances, of another iterable the first ones.
        inputs: The network's inputs.
        limit: At most so many samples; None for all.
        preprocess: The contract, for images of an array of uint8.

    Raises:
        DataError: no sample, or (when it is read) one that lacks an input or has another shape.
    """
    if is_array(samples) and len(inputs) == 1:
        return _data_of_given_array(array_of(samples), inputs[0], limit, preprocess)
    # An array and a dataset are sequences too, without saying so.
    indexed = hasattr(samples, "__len__") and hasattr(samples, "__getitem__")
    if gives_batches(samples):
        held: Any = samples_of_batches(samples, inputs, limit)
    elif indexed:
        held = samples
    else:
        held = list(islice(samples, limit if limit is not None else current_limits().samples + 1))
    if not len(held):
        raise DataError("the calibration set is empty", expected="at least one sample")
    check_samples(min(len(held), limit or len(held)), "the calibration set")
    chosen = spread(len(held), limit)

    def read(index: int) -> dict[str, FloatArray]:
        return _read_sample(held[chosen[index]], inputs, chosen[index])

    return CalibrationData(f"{len(chosen)} of {len(held)} samples given", len(chosen), read)


def _data_of_given_array(
    array: Array, spec: TensorSpec, limit: int | None, preprocess: Preprocess | None
) -> CalibrationData:
    origin = "the array given"
    if array.dtype not in (np.uint8, np.float32):
        array = as_float32(array, origin)
    source = _source_of_array(array, origin, spec, preprocess)
    if not source.count:
        raise DataError("the calibration set is empty", expected="at least one sample")
    chosen = spread(source.count, limit)
    check_samples(len(chosen), origin)
    return CalibrationData(
        f"{len(chosen)} of {source.count} samples given",
        len(chosen),
        lambda index: {spec.name: source.read(chosen[index])},
    )


def _read_sample(
    sample: Sample, inputs: Sequence[TensorSpec], number: int
) -> dict[str, FloatArray]:
    sample = without_label(sample)
    if not isinstance(sample, Mapping):
        if len(inputs) != 1:
            raise DataError(
                f"calibration sample {number} is {type(sample).__name__}",
                expected=f"a mapping with {_names(inputs)}, the inputs of the network",
            )
        sample = {inputs[0].name: sample}
    missing = [spec for spec in inputs if spec.name not in sample]
    if missing:
        raise DataError(
            f"calibration sample {number} has {', '.join(map(str, sample)) or 'nothing'}",
            expected=f"also {_names(missing)}, as the network has these inputs",
        )
    found = {}
    for spec in inputs:
        array = array_of(sample[spec.name])
        if array.shape == (1, *spec.shape[1:]):
            array = array[0]
        if array.shape != spec.shape[1:]:
            raise DataError(
                f"calibration sample {number} has shape {array.shape} for input '{spec.name}'",
                expected=f"{spec.shape[1:]} or {(1, *spec.shape[1:])}",
            )
        found[spec.name] = as_float32(array, f"input '{spec.name}' of calibration sample {number}")
    return found


def as_float32(array: Array, origin: str) -> FloatArray:
    """Numbers of any kind as float32.

    Raises:
        DataError: no numbers, or integers that float32 does not hold.
    """
    if array.dtype.kind not in "biuf":
        raise DataError(f"{origin} has dtype {array.dtype}", expected="numbers")
    if array.dtype.itemsize > 2 and array.dtype.kind in "iu" and array.size:
        largest = max(abs(int(array.min())), abs(int(array.max())))
        if largest > _LARGEST_INTEGER:
            raise DataError(
                f"{origin} holds the integer {largest:,}",
                expected=f"at most {_LARGEST_INTEGER:,}, which float32 holds",
            )
    return np.array(array, dtype=np.float32)


def _sources_of_npz(
    path: Path, inputs: Sequence[TensorSpec], preprocess: Preprocess | None
) -> dict[str, _Source]:
    try:
        with open_npz(path) as archive:
            missing = [spec for spec in inputs if spec.name not in archive.names]
            if missing:
                raise DataError(
                    f"{path} holds the arrays {', '.join(archive.names) or '(none)'}",
                    expected=f"also {_names(missing)}: the network has {len(inputs)} inputs",
                    advice="numpy.savez(FILE, **{name: array, ...}), each array (n, ...)",
                )
            arrays = {spec.name: archive.read(spec.name) for spec in inputs}
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot read calibration data from {path}: {error}",
            expected=f"an .npz file with {_names(inputs)}, or a folder with an entry for each: "
            f"the network has {len(inputs)} inputs",
        ) from error
    return {
        spec.name: _source_of_array(
            arrays[spec.name], f"'{spec.name}' in {path.name}", spec, preprocess
        )
        for spec in inputs
    }


def _source_of_array(
    array: Array, origin: str, spec: TensorSpec, preprocess: Preprocess | None
) -> _Source:
    ready = array.ndim > 0 and array.shape[1:] == spec.shape[1:]
    images = array.dtype == np.uint8 and preprocess is not None and _fits(preprocess, spec)
    if array.dtype != np.float32 and ready and not images:
        if not len(array):
            raise DataError(f"{origin} is empty", expected="at least one sample")
        return _Source(len(array), lambda index: as_float32(np.asarray(array[index]), origin))
    return _Source(len(array), array_reader(array, origin, spec, preprocess))


def _fits(preprocess: Preprocess, spec: TensorSpec) -> bool:
    return spec.shape[1:] == (preprocess.channels, *preprocess.size)


def _source_of_entry(folder: Path, spec: TensorSpec, preprocess: Preprocess | None) -> _Source:
    """The entry of a folder that has an input's name."""
    file, where = folder / (spec.name + _ARRAY_SUFFIX), folder / spec.name
    inside = where.resolve().is_relative_to(folder.resolve())  # the name is from a model's file
    if inside and file.is_file():
        return _source_of_array(_read_npy(file), file.name, spec, preprocess)
    candidates = sorted(where.rglob("*")) if inside else []
    found = [p for p in candidates if p.is_file() and not p.name.startswith(".")]
    arrays = [p for p in found if p.suffix == _ARRAY_SUFFIX]
    images = [p for p in found if p.suffix.lower() in IMAGE_SUFFIXES]
    if not arrays and not images:
        raise DataError(
            f"no calibration data for input '{spec.name}' in {folder}",
            expected=f"a folder '{spec.name}' with images or with .npy files of one sample each, "
            f"or a file '{file.name}' with all samples",
        )
    if arrays and images:
        raise DataError(f"{where} holds images and .npy files", expected="one kind")
    keys = tuple(p.relative_to(where).with_suffix("").as_posix() for p in arrays or images)
    if arrays:
        return _Source(len(arrays), lambda i: _read_one(arrays[i], spec), keys)
    contract = check_contract(preprocess, spec, f"the images in {where}")
    return _Source(len(images), lambda i: contract.apply(open_image(images[i])), keys)


def _read_one(path: Path, spec: TensorSpec) -> FloatArray:
    array = np.asarray(_read_npy(path))
    fits = array.shape in (spec.shape[1:], (1, *spec.shape[1:]))
    if not fits:
        raise DataError(
            f"{path} has shape {array.shape}",
            expected=f"{spec.shape[1:]}, one sample of the input '{spec.name}'",
        )
    return as_float32(array.reshape(spec.shape[1:]), str(path))


def _read_npy(path: Path) -> Array:
    try:
        return map_npy(path)
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot read calibration data from {path}: {error}",
            expected="an .npy file without pickled objects",
        ) from error


def _check_counts(sources: Mapping[str, _Source], path: Path) -> None:
    counts = {name: one.count for name, one in sources.items()}
    if len(set(counts.values())) != 1:
        listed = ", ".join(f"{count} of '{name}'" for name, count in counts.items())
        raise DataError(
            f"{path} holds {listed}", expected="as many samples of each input: they belong together"
        )
    named = {name: one.keys for name, one in sources.items() if one.keys}
    first = next(iter(named.values()), ())
    for name, keys in named.items():
        if keys != first:
            alone = sorted(set(keys) ^ set(first))[:_LISTED]
            raise DataError(
                f"the samples of input '{name}' in {path} have other names: {', '.join(alone)}",
                expected="the same names below each input's folder: they say what belongs together",
            )


def _is_readable(sources: Mapping[str, _Source], index: int) -> bool:
    try:
        for one in sources.values():
            one.read(index)
    except DataError:
        return False
    return True


def _names(inputs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"'{spec.name}'" for spec in inputs)
