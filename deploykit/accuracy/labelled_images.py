"""Labelled images from disk: IDX folders as MNIST and Fashion-MNIST come in, and ``.npz`` samples.

The IDX format is described at http://yann.lecun.com/exdb/mnist/: two zero bytes, one byte for the
element type (8 is uint8), one byte for the number of axes, each axis as a big-endian uint32, then
the elements in row-major order.
"""

from __future__ import annotations

import gzip
import math
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from deploykit.array_file import map_npy, open_npz
from deploykit.errors import DataError
from deploykit.limits import check_samples

ByteArray = npt.NDArray[np.uint8]
LabelArray = npt.NDArray[np.int64]
Split = Literal["train", "test"]

FASHION_MNIST_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's and Ubuntu's package ``dataset-fashion-mnist`` puts the four files."""

FASHION_MNIST_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

_MOST_CLASSES = 100_000
_UNREADABLE = (OSError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error)
_PREFIXES = {"train": "train", "test": "t10k"}
_IDX_FILES = {"images": "images-idx3-ubyte", "labels": "labels-idx1-ubyte"}
INSTALL_FASHION_MNIST = "apt-get install dataset-fashion-mnist"
_GET_DATA = "name a file or folder that has it with --data"
_GET_AGAIN = "fetch the file again, or name another folder with --data"


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images and what is on them.

    Attributes:
        images: uint8 of shape (n, height, width, channels), 1 or 3 (RGB) channels.
        labels: int64 of shape (n,), each an index into ``classes``.
        classes: Name of each class.
        calibration: uint8 of shape (m, height, width, channels): unlabelled images, none of them
            in ``images``, to set the ranges of a quantized model with; or None.
    """

    images: ByteArray
    labels: LabelArray
    classes: tuple[str, ...]
    calibration: ByteArray | None = None

    def __post_init__(self) -> None:
        check_samples(len(self.images), "the labelled data set")
        _check_images("images", self.images)
        if self.calibration is not None:
            _check_images("calibration", self.calibration)
        if self.labels.dtype != np.int64 or self.labels.shape != (len(self.images),):
            raise DataError(
                f"labels of dtype {self.labels.dtype} and shape {self.labels.shape} "
                f"for {len(self.images)} images",
                expected=f"int64 of shape ({len(self.images)},)",
            )
        if not len(self.labels):
            raise DataError("a dataset without a single image")
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= len(self.classes):
            raise DataError(
                f"labels from {low} to {high}",
                expected=f"0 to {len(self.classes) - 1}, an index into {len(self.classes)} classes",
            )

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> ByteArray:
        """One image, uint8 of shape (height, width, channels)."""
        image: ByteArray = self.images[index]
        return image


def read_labelled_images(path: Path, classes: Sequence[str] | None = None) -> LabelledImages:
    """The images to measure accuracy on: the test split of an IDX folder, or an ``.npz`` sample.

    Args:
        path: Of either.
        classes: Names of the classes of an IDX folder, whose files have none; None for those of
            Fashion-MNIST.

    Raises:
        DataError: there is nothing at ``path``, or it cannot be read.
    """
    if path.is_dir():
        return read_idx_folder(path, "test", classes or FASHION_MNIST_CLASSES)
    return read_labelled_npz(path)


def read_idx_folder(
    folder: Path, split: Split, classes: Sequence[str] = FASHION_MNIST_CLASSES
) -> LabelledImages:
    """One split of an IDX folder, from files named as MNIST's, gzipped or not.

    Args:
        folder: Has ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte`` and the same two with
            ``t10k`` in place of ``train``, each with ``.gz`` at its end or without.
        split: ``train`` or ``test``.
        classes: Name of each class.

    Returns:
        The images, with one channel.

    Raises:
        DataError: a file is missing, damaged or no IDX file, or the two do not belong together.
    """
    prefix = _PREFIXES[split]
    images_file = _find_idx_file(folder, f"{prefix}-{_IDX_FILES['images']}")
    labels_file = _find_idx_file(folder, f"{prefix}-{_IDX_FILES['labels']}")
    images = _read_idx_file(images_file, axes=3)
    labels = _read_idx_file(labels_file, axes=1)
    if len(images) != len(labels):
        raise DataError(
            f"{images_file.name} has {len(images)} images and {labels_file.name} "
            f"has {len(labels)} labels",
            expected="one label for each image",
            advice=f"the two files in {folder} belong to different datasets: {_GET_AGAIN}",
        )
    return LabelledImages(images[..., None], labels.astype(np.int64), tuple(classes))


def read_labelled_npz(path: Path) -> LabelledImages:
    """A labelled sample.

    Args:
        path: An ``.npz`` with ``images`` (uint8, NHWC), ``labels`` (int64) and, if it likes,
            ``classes`` (names; else the numbers serve) and ``calibration`` (uint8, NHWC).

    Raises:
        DataError: no such file, no ``.npz``, or its arrays are not as above.
    """
    arrays = _read_arrays(path)
    missing = [name for name in ("images", "labels") if name not in arrays]
    if missing:
        raise DataError(
            f"{path} has the arrays {sorted(arrays)}, without {' and '.join(missing)}",
            expected="'images' (uint8, NHWC), 'labels' (int64), and optionally 'classes' and "
            "'calibration'",
        )
    labels = arrays["labels"]
    if "classes" in arrays:
        classes = tuple(str(name) for name in arrays["classes"].ravel())
    else:
        count = int(labels.max()) + 1 if labels.size and labels.dtype.kind in "iu" else 0
        classes = tuple(str(index) for index in range(min(count, _MOST_CLASSES)))
    return LabelledImages(arrays["images"], labels, classes, arrays.get("calibration"))


def draw_balanced(labels: LabelArray, count: int, seed: int) -> LabelArray:
    """Choose images so that no class has over one more of them than another.

    Args:
        labels: int64 of shape (n,).
        count: How many to choose.
        seed: The same seed chooses the same images.

    Returns:
        int64 of shape (count,): their indices, rising.

    Raises:
        DataError: a class has too few images for that.
    """
    present = np.unique(labels)
    share, rest = divmod(count, len(present))
    generator = np.random.default_rng(seed)
    chosen = []
    for position, label in enumerate(present):
        wanted = share + (position < rest)
        indices = np.flatnonzero(labels == label)
        if len(indices) < wanted:
            raise DataError(
                f"class {label} has {len(indices)} images",
                expected=f"at least {wanted}, to draw {count} images evenly",
            )
        chosen.append(generator.permutation(indices)[:wanted])
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def _check_images(name: str, images: npt.NDArray[Any]) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise DataError(
            f"{name} of dtype {images.dtype} and shape {images.shape}",
            expected="uint8 of shape (n, height, width, 1) or (n, height, width, 3)",
        )
    if 0 in images.shape[1:3]:
        raise DataError(
            f"{name} of {images.shape[1]} x {images.shape[2]} pixels",
            expected="images with one pixel at least",
        )


def missing_idx_files(folder: Path) -> tuple[str, ...]:
    """The files of an IDX folder that are not there, plain or gzipped; empty if it is whole."""
    names = [f"{prefix}-{kind}" for prefix in _PREFIXES.values() for kind in _IDX_FILES.values()]
    return tuple(
        name
        for name in names
        if not any((folder / file).is_file() for file in (name, f"{name}.gz"))
    )


def _find_idx_file(folder: Path, name: str) -> Path:
    for candidate in (folder / f"{name}.gz", folder / name):
        if candidate.is_file():
            return candidate
    raise DataError(
        f"there is no {name}.gz and no {name} in {folder}",
        expected="the four IDX files of a dataset such as MNIST",
        advice=_GET_DATA,
    )


def _read_idx_file(path: Path, axes: int) -> ByteArray:
    content = _read_bytes(path)
    magic = bytes((0, 0, 8, axes))
    if content[:4] != magic:
        raise DataError(
            f"{path} begins with the bytes {content[:4].hex(' ') or '(none)'}",
            expected=f"{magic.hex(' ')}: an IDX file of uint8 with {axes} axes",
            advice=_GET_AGAIN,
        )
    start = 4 + 4 * axes
    if len(content) < start:
        raise DataError(
            f"{path} ends within its header, after {len(content)} bytes",
            expected=f"a header of {start} bytes",
            advice=_GET_AGAIN,
        )
    shape = struct.unpack(f">{axes}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise DataError(
            f"{path} has {len(content) - start} bytes after its header",
            expected=f"{math.prod(shape)}, for the shape {shape} that the header says",
            advice=_GET_AGAIN,
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _read_bytes(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path} cannot be unpacked: {error}",
            expected="a whole gzip file",
            advice=_GET_AGAIN,
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", advice=_GET_DATA) from error


def _read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    expected = (
        "class folders of images, a .csv of file,label, an .npz file with 'images' and 'labels', "
        "or a folder of IDX files"
    )
    if not path.exists():
        raise DataError(f"there is no {path}", expected=expected, advice=_GET_DATA)
    try:
        if not zipfile.is_zipfile(path):
            map_npy(path)
            raise DataError(f"{path} has a single array without a name", expected=expected)
        with open_npz(path) as archive:
            return {n: archive.read(n, texts=n == "classes") for n in archive.names}
    except _UNREADABLE as error:
        raise DataError(f"{path} cannot be read: {error}", expected=expected) from error
