"""Arrays in .npy and .npz files that others made: the header is checked before anything is read.

numpy allocates what a header asks for: 100 bytes may ask for terabytes, and an archive of 2 MB may
unpack to gigabytes. Here the size that a header claims must be that of the data behind it.
"""

from __future__ import annotations

import io
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from deploykit.archive import check_archive
from deploykit.limits import current_limits, elements_of
from deploykit.tensors import Array

_KINDS = "biufc"  # bool, integers, floats, complex: no objects, texts, times or records
_TEXTS = "U"  # of one length, so that a header says how much there is
_MOST_DIMS = 16


def map_npy(path: Path) -> Array:
    """The array of an .npy file, mapped into memory read-only: nothing is read yet.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no .npy file of plain numbers, or not of the size that its header says.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        shape, fortran, dtype = _read_header(stream, size)
        offset = stream.tell()
    if 0 in shape:
        return np.empty(shape, dtype)
    order = "F" if fortran else "C"
    return np.memmap(path, dtype, mode="r", shape=shape, order=order, offset=offset)  # type: ignore[call-overload, no-any-return]


class NpzFile:
    """An open .npz archive whose members are arrays of plain numbers.

    Attributes:
        names: Of the arrays, in the archive's order.
    """

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._members = {
            info.filename.removesuffix(".npy"): info
            for info in archive.infolist()
            if info.filename.endswith(".npy")
        }

    @property
    def names(self) -> Sequence[str]:
        return list(self._members)

    def read(self, name: str, *, texts: bool = False) -> Array:
        """One array.

        Args:
            name: Its name.
            texts: Whether it may hold texts (``U``) instead of numbers.

        Raises:
            ValueError: it is damaged, or no array of plain numbers.
        """
        info = self._members[name]
        with _as_value_error(), self._archive.open(info) as stream:
            kinds = _KINDS + _TEXTS if texts else _KINDS
            shape, fortran, dtype = _read_header(stream, info.file_size, kinds)
            count = elements_of(shape)
            data = stream.read(count * dtype.itemsize)
        if len(data) != count * dtype.itemsize:
            raise ValueError(f"the array '{name}' ends too early")
        array = np.frombuffer(data, dtype, count)
        return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)


@contextmanager
def open_npz(path: Path) -> Iterator[NpzFile]:
    """An .npz file, whose members are read one by one.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no zip archive, or unpacks to more than the limits allow.
    """
    with _as_value_error():
        archive = zipfile.ZipFile(path)
    with archive:
        check_archive(archive, path)
        yield NpzFile(archive)


@contextmanager
def _as_value_error() -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        # RuntimeError: it is encrypted
        raise ValueError(str(error) or "it ends too early") from error


def _read_header(
    stream: IO[bytes], size: int, kinds: str = _KINDS
) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(stream)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = read(stream)
    except (KeyError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(f"its header cannot be read: {type(error).__name__}") from error
    except tokenize.TokenError as error:
        raise ValueError("its header ends too early") from error
    whole = all(type(d) is int and d >= 0 for d in shape)
    if not whole or len(shape) > _MOST_DIMS or dtype.kind not in kinds or dtype.subdtype:
        raise ValueError(f"it holds {dtype} of shape {shape}, no array of plain numbers")
    claimed, there = elements_of(shape) * dtype.itemsize, size - _position(stream)
    if claimed != there:
        raise ValueError(f"its header says {claimed:,} bytes, and {there:,} are there")
    if claimed > current_limits().unpacked_bytes:
        raise ValueError(f"it holds {claimed:,} bytes (--max unpacked_bytes=SIZE allows more)")
    return shape, fortran, dtype


def _position(stream: IO[bytes]) -> int:
    return stream.tell()


def array_bytes(array: Array) -> bytes:
    """An array as an .npy file; the same bytes for the same array."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), (1, 0))
    return buffer.getvalue()
