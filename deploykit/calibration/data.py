"""Calibration data: images or arrays, as a stream of the tensors that the network reads.

What is accepted for a network with one input (`deploykit.calibration.named_data` has the rest):

1.  A folder of images, read recursively in the order of their paths: .jpg, .jpeg, .png, .bmp,
    .webp (`deploykit.calibration.image_folder`). They go through the preprocessing contract.
2.  An .npy file, or an .npz file (its array ``calibration``, else ``images``, else that of the
    input's name, else its only one):
    float32 (n, C, H, W), or (n, H, W, C) where that is the only way to read it, are tensors ready
    to run; uint8 (n, H, W), (n, H, W, 1 or 3) or (n, 1 or 3, H, W) are images and go through the
    contract.

With a limit, samples are taken at equal distances over the whole set: folders are often sorted by
class.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploykit.array_file import map_npy, open_npz
from deploykit.calibration.check import SetObserver
from deploykit.calibration.image_folder import (
    DrawnImages,
    draw_images,
    open_image,
    refuse_one_image,
    spread,
)
from deploykit.errors import ContractError, DataError
from deploykit.limits import check_samples
from deploykit.model import Model
from deploykit.preprocess import Preprocess
from deploykit.tensors import Array, FloatArray, TensorSpec


@dataclass(frozen=True)
class CalibrationData:
    """A set of samples, each made when it is asked for.

    Attributes:
        description: What it is, in words.
        count: Number of samples.
        read: Sample number → input name → float32 of the input's shape without the batch axis.
    """

    description: str
    count: int
    read: Callable[[int], Mapping[str, FloatArray]]

    def chosen(self, indices: Sequence[int], description: str) -> CalibrationData:
        """Some of the samples."""
        return CalibrationData(description, len(indices), lambda index: self.read(indices[index]))

    def batches(self, size: int) -> Iterator[dict[str, FloatArray]]:
        """All samples in order, ``size`` at a time; the last one is repeated to fill the batch.

        Args:
            size: The batch that the network is made for.

        Yields:
            Input name → float32 (size, ...); no more than one batch is in memory.

        Raises:
            DataError: a file that is no image.
        """
        if size < 1:
            raise ValueError(f"a batch of {size}")
        for start in range(0, self.count, size):
            samples = [self.read(i) for i in range(start, min(start + size, self.count))]
            samples += [samples[-1]] * (size - len(samples))
            yield {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}

    def divided(self, count: int) -> tuple[CalibrationData, CalibrationData]:
        """Without ``count`` samples, and those samples, at equal distances over the set.

        Args:
            count: From 1 to one less than there are.
        """
        apart = [(2 * i + 1) * self.count // (2 * count) for i in range(count)]
        return self.subset(sorted(set(range(self.count)) - set(apart))), self.subset(apart)

    def subset(self, chosen: Sequence[int]) -> CalibrationData:
        """Some of the samples, by their numbers."""
        words = f"{len(chosen)} of {self.description}"
        return CalibrationData(words, len(chosen), lambda index: self.read(chosen[index]))

    def fingerprint(self) -> str:
        """SHA-256 over all tensors in order; it reads the whole set."""
        observer = SetObserver()
        for index in range(self.count):
            observer.add(self.read(index))
        return observer.fingerprint()


def load_calibration_data(
    path: Path,
    model_input: TensorSpec,
    preprocess: Preprocess | None,
    limit: int | None = None,
    *,
    skip_unreadable: bool = False,
) -> CalibrationData:
    """The calibration data at a path; see the module's docstring for what is accepted.

    Args:
        path: A folder, an .npy or an .npz file.
        model_input: The network's input, (1, C, H, W).
        preprocess: The contract, needed for images.
        limit: At most so many samples, spread over the set.
        skip_unreadable: Whether images of a folder that cannot be decoded are omitted.

    Raises:
        DataError: nothing there, no images, a wrong shape or dtype.
        ContractError: images without a contract, or a contract that does not give the shape of
            the input.
    """
    if limit is not None and limit < 1:
        raise DataError(f"a limit of {limit} calibration samples", expected="at least 1")
    if path.is_dir():
        images = draw_images(path, limit, skip_unreadable=skip_unreadable)
        return _data_of_images(images, model_input, preprocess)
    if not path.exists():
        raise DataError(
            f"no calibration data at {path}",
            expected="a folder of images, an .npy or an .npz file",
        )
    refuse_one_image(path)
    array, origin = _load_array(path, model_input.name)
    return _data_of_array(array, origin, model_input, preprocess, limit)


def sample_as_data(model: Model, limit: int | None = None) -> CalibrationData | None:
    """The images that came with the checkpoint; None if there are none.

    Raises:
        ContractError: there are, but no contract says how they become tensors.
        DataError: the sample is no array of images.
    """
    if model.calibration_sample is None:
        return None
    origin = f"the checkpoint's own sample of '{model.name}'"
    return _data_of_array(
        model.calibration_sample, origin, _image_input(model.inputs), model.preprocess, limit
    )


def _image_input(inputs: Sequence[TensorSpec]) -> TensorSpec:
    if len(inputs) != 1:
        raise DataError(
            f"a model with {len(inputs)} inputs", expected="one input, to calibrate with images"
        )
    return inputs[0]


def _data_of_images(
    images: DrawnImages, model_input: TensorSpec, preprocess: Preprocess | None
) -> CalibrationData:
    contract = check_contract(preprocess, model_input, f"the images in {images.folder}")
    return CalibrationData(
        description=images.description,
        count=len(images.files),
        read=lambda index: {model_input.name: contract.apply(open_image(images.files[index]))},
    )


def _load_array(path: Path, name: str) -> tuple[Array, str]:
    try:
        if zipfile.is_zipfile(path):
            with open_npz(path) as archive:
                key = _choose_key(path, archive.names, name)
                return archive.read(key), f"'{key}' in {path.name}"
        return map_npy(path), path.name
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot read calibration data from {path}: {error}",
            expected="a folder of images, or an .npy or .npz file without pickled objects",
        ) from error


def _choose_key(path: Path, keys: Sequence[str], name: str) -> str:
    for key in ("calibration", "images", name):
        if key in keys:
            return key
    if len(keys) == 1:
        return keys[0]
    raise DataError(
        f"{path} holds the arrays {', '.join(sorted(keys)) or '(none)'}",
        expected=f"an array 'calibration', 'images' or '{name}', or a single one",
    )


def _data_of_array(
    array: Array,
    origin: str,
    model_input: TensorSpec,
    preprocess: Preprocess | None,
    limit: int | None,
) -> CalibrationData:
    read = array_reader(array, origin, model_input, preprocess)
    check_samples(min(array.shape[0], limit or array.shape[0]), origin)
    chosen = spread(array.shape[0], limit)
    kind = "images" if array.dtype == np.uint8 else "tensors"
    return CalibrationData(
        description=f"{len(chosen)} of {array.shape[0]} {kind} of {origin}",
        count=len(chosen),
        read=lambda index: {model_input.name: read(chosen[index])},
    )


def array_reader(
    array: Array, origin: str, model_input: TensorSpec, preprocess: Preprocess | None
) -> Callable[[int], FloatArray]:
    """What gives sample number i of an array of ready tensors or of images.

    Raises:
        DataError: an empty array, or one of another shape or dtype than one of these has.
        ContractError: images without a contract that fits.
    """
    if array.ndim == 0 or not array.shape[0]:
        raise DataError(f"{origin} is empty: shape {array.shape}", expected="at least one sample")
    if array.dtype == np.uint8:
        return _reader_of_images(array, origin, model_input, preprocess)
    if array.dtype == np.float32:
        return _reader_of_tensors(array, origin, model_input)
    raise DataError(
        f"{origin} has dtype {array.dtype}",
        expected="uint8 images or float32 tensors",
        advice="convert it: array.astype(numpy.float32)",
    )


def _reader_of_images(
    array: Array, origin: str, model_input: TensorSpec, preprocess: Preprocess | None
) -> Callable[[int], FloatArray]:
    channels_last = array.ndim == 3 or (array.ndim == 4 and array.shape[3] in (1, 3))
    channels_first = array.ndim == 4 and array.shape[1] in (1, 3)
    if not (channels_last or channels_first):
        raise DataError(
            f"{origin} has shape {array.shape}",
            expected="uint8 images: (n, H, W), (n, H, W, 1) or (n, H, W, 3)",
        )
    contract = check_contract(preprocess, model_input, origin)

    def read(index: int) -> FloatArray:
        image = np.asarray(array[index])
        return contract.apply(image if channels_last else np.moveaxis(image, 0, -1))

    return read


def _reader_of_tensors(
    array: Array, origin: str, model_input: TensorSpec
) -> Callable[[int], FloatArray]:
    shape = model_input.shape[1:]
    if array.shape[1:] == shape:
        return lambda index: np.array(array[index], dtype=np.float32)
    if len(shape) == 3 and array.shape[1:] == (*shape[1:], shape[0]):
        return lambda index: np.ascontiguousarray(np.moveaxis(array[index], -1, 0), np.float32)
    expected = f"(n, {', '.join(map(str, shape))})"
    if len(shape) == 3:
        expected += f" or (n, {shape[1]}, {shape[2]}, {shape[0]})"
    raise DataError(
        f"{origin} has shape {array.shape}",
        expected=f"{expected}, as the input '{model_input.name}' of the network",
        advice="or give uint8 images of any size, which go through the preprocessing contract",
    )


def check_contract(
    preprocess: Preprocess | None, model_input: TensorSpec, origin: str
) -> Preprocess:
    """The contract, if it makes what the input reads.

    Raises:
        ContractError: there is none, or it makes another shape.
    """
    if preprocess is None:
        raise ContractError(
            f"{origin} are images, and nothing says how an image becomes the network's input",
            expected="a preprocessing contract (size, colour order, mean, std)",
            advice="give a checkpoint that carries one, give one with --preprocess, or give "
            "float32 tensors that are ready to run (.npy, .npz)",
        )
    made = (preprocess.channels, *preprocess.size)
    if model_input.shape[1:] != made:
        raise ContractError(
            f"the preprocessing contract makes tensors of shape {made}",
            expected=f"{model_input.shape[1:]}, as the input '{model_input.name}' of the network",
            advice="make the contract's size and colour those that the network reads",
        )
    return preprocess
