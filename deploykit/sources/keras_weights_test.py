from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploykit.errors import SourceError
from deploykit.sources.keras_archive import WEIGHTS
from deploykit.sources.keras_weights import check_keras_weights

h5py = pytest.importorskip("h5py", reason="h5py comes with the extra [tensorflow]")


def keras_file(path: Path, fill: Callable[[Any], None]) -> Path:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file["layers/conv2d/vars/0"] = np.ones((3, 3), np.float32)
        fill(file)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(WEIGHTS, stream.getvalue())
    return path


def _link(file: Any) -> None:
    file["layers/dense"] = h5py.ExternalLink("/etc/other.h5", "/w")


def _storage(file: Any) -> None:
    file.create_dataset("w", (4,), "u1", external=[("/etc/passwd", 0, 4)])


def _virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((4,), "u1")
    layout[:] = h5py.VirtualSource("/etc/other.h5", "w", (4,))
    file.create_virtual_dataset("layers/w", layout)


def _links_within(file: Any) -> None:
    file["layers/again"] = file["layers"]  # in a circle
    file["soft"] = h5py.SoftLink("/layers/conv2d")
    layout = h5py.VirtualLayout((3, 3), "f4")
    layout[:] = h5py.VirtualSource(".", "layers/conv2d/vars/0", (3, 3))
    file.create_virtual_dataset("v", layout)


@pytest.mark.parametrize(
    ("fill", "words"),
    [
        (_link, "the link 'dense' to /etc/other.h5"),
        (_storage, "the data of 'w' in /etc/passwd"),
        (_virtual, "the data of 'w' in /etc/other.h5"),
    ],
)
def test_weights_in_other_files_are_refused(
    tmp_path: Path, fill: Callable[[Any], None], words: str
) -> None:
    with pytest.raises(SourceError, match="refer to other files") as raised:
        check_keras_weights(keras_file(tmp_path / "m.keras", fill))
    assert words in str(raised.value)


def test_links_within_the_file_are_let_through(tmp_path: Path) -> None:
    check_keras_weights(keras_file(tmp_path / "m.keras", _links_within))


def test_damaged_weights_are_an_error_in_words(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(WEIGHTS, b"weights")
    with pytest.raises(SourceError, match="are damaged"):
        check_keras_weights(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", b"{}")
    with pytest.raises(SourceError, match="are damaged"):
        check_keras_weights(path)
