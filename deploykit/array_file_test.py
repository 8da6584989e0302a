"""Arrays in files, and archives, that lie about their size."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from deploykit.array_file import array_bytes, map_npy, open_npz
from deploykit.limits import Limits, limits_set


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.float32).reshape(3, 4),
        np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3)),
        np.zeros((0, 3), np.int64),
        np.array(3.5),
        np.arange(3, dtype=">f4"),
    ],
)
def test_sound_arrays(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    np.savez_compressed(tmp_path / "a.npz", one=array, two=array)
    np.testing.assert_array_equal(map_npy(tmp_path / "a.npy"), array)
    with open_npz(tmp_path / "a.npz") as archive:
        assert archive.names == ["one", "two"]
        np.testing.assert_array_equal(archive.read("two"), array)


def _npy(header: str) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(16)


ODD = [
    "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1.5,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (2,), }",
    "{'descr': '<U4', 'fortran_order': False, 'shape': (1,), }",
    "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (4,), }",
    "{'descr': None, 'fortran_order': False, 'shape': (4,), }",
    "{'descr': '<f4'}", "__import__('os')", "(" * 3000, "", "{'descr': '<f4', 'shape': (4",
]  # fmt: skip


@pytest.mark.parametrize("header", ODD)
def test_odd_headers_are_value_errors(tmp_path: Path, header: str) -> None:
    data = _npy(header)
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(ValueError, match="."):
        map_npy(tmp_path / "a.npy")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", data)
    with open_npz(tmp_path / "a.npz") as opened, pytest.raises(ValueError, match="."):
        opened.read("a")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", array_bytes(np.zeros(1 << 16, np.uint8)))
    with (
        limits_set(Limits(unpacked_bytes=1000)),
        pytest.raises(ValueError, match="unpacks to"),
        open_npz(path),
    ):
        pass
    # What the table of contents says of a size is all that is ever unpacked.
    large = tmp_path / "large.zip"
    with zipfile.ZipFile(large, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(300 << 20))
    with pytest.raises(ValueError, match="archive_ratio"), open_npz(large):
        pass


def test_no_archive(tmp_path: Path) -> None:
    for data in (b"", b"PK\x03\x04", io.BytesIO().getvalue(), b"\x93NUMPY"):
        (tmp_path / "x.npz").write_bytes(data)
        with pytest.raises(ValueError, match="."), open_npz(tmp_path / "x.npz"):
            pass
