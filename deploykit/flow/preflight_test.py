from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deploykit.errors import DataError, UserError
from deploykit.flow.plan import ConvertRequest
from deploykit.flow.preflight import check_before_loading, check_writable


def checkpoint(path: Path, **entries: Any) -> Path:
    """As torch.save lays a file out, without torch: a zip with a pickle of plain data."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"state_dict": {}, **entries}))
    return path


def check(model: Path, **fields: Any) -> None:
    check_before_loading(model, ConvertRequest(**fields))


def test_int8_without_data_is_refused_where_the_checkpoint_brings_none(tmp_path: Path) -> None:
    plain = checkpoint(tmp_path / "plain.pt")
    with pytest.raises(DataError, match="--calibrate"):
        check(plain, precisions=("int8",))
    check(plain, precisions=("fp32",))
    check(checkpoint(tmp_path / "own.pt", calibration=[1]), precisions=("int8",))


def test_unreadable_photos_are_found_before_the_model_is_loaded(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(photos / "good.jpg")
    for name in ("a.jpg", "b.png"):
        (photos / name).write_bytes(b"broken")
    plain = checkpoint(tmp_path / "plain.pt")
    with pytest.raises(DataError, match=r"2 images(.|\n)*a\.jpg(.|\n)*b\.png"):
        check(plain, precisions=("int8",), calibration=photos)
    check(plain, precisions=("int8",), calibration=photos, skip_unreadable=True)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"targets": ("tfl",)}, "tfl"),
        ({"precisions": ("int7",)}, "int7"),
        ({"options": {"tflite": {"oi": "float32"}}}, "oi"),
        ({"runners": ("nosuch",)}, "nosuch"),
        ({"limits": ("int8.nothing=1",)}, "nothing"),
        ({"calibration": Path("nowhere")}, "nowhere"),
        ({"calibration_table": Path("nowhere.json")}, "nowhere"),
    ],
)
def test_what_is_wrong_whatever_the_model_is(
    tmp_path: Path, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        check(checkpoint(tmp_path / "plain.pt"), **fields)


def test_an_output_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file" / "sub", tmp_path / "file", Path("/proc/deploykit")):
        with pytest.raises(UserError):
            check_writable(folder)
    check_writable(tmp_path / "new" / "deeper")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_one_image_is_refused_with_the_folder_that_it_is_in(tmp_path: Path) -> None:
    image = tmp_path / "photos" / "cat.JPG"
    image.parent.mkdir()
    Image.new("RGB", (8, 8)).save(image)
    plain = checkpoint(tmp_path / "plain.pt")
    with pytest.raises(DataError, match=r"is one image(.|\n)*photos"):
        check(plain, precisions=("int8",), calibration=image)
