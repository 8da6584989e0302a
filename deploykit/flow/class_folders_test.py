"""Class folders name the classes, and show a network that does not know them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from deploykit.flow.class_folders import folder_classes, measure_reference, with_folder_labels
from deploykit.flow.plan import ConvertRequest
from deploykit.model import Model
from deploykit.preprocess import Preprocess
from deploykit.sources.load import load

_TEXT = """
<ir_version: 10, opset_import: ["" : 21]>
mean_of_channels (float[1, 3, 8, 8] x) => (float[1, 3] y) {
    m = GlobalAveragePool (x)
    y = Flatten (m)
}
"""
_COLORS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """Names the channel with most light: 0 red, 1 green, 2 blue."""
    onnx.save(onnx.parser.parse_model(_TEXT), tmp_path / "mean.onnx")
    contract = Preprocess(size=(8, 8), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return replace(load(tmp_path / "mean.onnx"), preprocess=contract)


@pytest.fixture
def request_of_folders(tmp_path: Path) -> ConvertRequest:
    for name, color in _COLORS.items():
        for number in range(8):
            path = tmp_path / "photos" / name / "deep" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (9 + number, 20), color).save(path)
    return ConvertRequest(calibration=tmp_path / "photos")


def test_folders_in_order_are_labels_and_a_wrong_order_is_warned_of(
    model: Model, request_of_folders: ConvertRequest
) -> None:
    lines: list[str] = []
    labelled = with_folder_labels(model, request_of_folders, lines.append)
    assert labelled.labels == ("blue", "green", "red")
    assert "0 blue, 1 green, 2 red" in lines[0]
    found = measure_reference(labelled, labelled, request_of_folders, lines.append)
    assert found is not None
    assert (found.correct, found.total) == (8, 24)
    assert "8 of 24 images" in found.warning
    assert "near chance" in lines[1]


def test_a_network_that_knows_them_is_not_warned_of_and_unreadable_images_do_not_count(
    model: Model, request_of_folders: ConvertRequest, tmp_path: Path
) -> None:
    (tmp_path / "photos/red/broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    model = replace(model, labels=("red", "green", "blue"))
    lines: list[str] = []
    assert with_folder_labels(model, request_of_folders, lines.append) is model
    found = measure_reference(model, model, request_of_folders, lines.append)
    assert found is not None
    assert (found.correct, found.total) == (24, 24)
    assert not found.warning
    assert lines == ["float reference: top-1 100.0% on 24 images of the class folders"]


@pytest.mark.parametrize("labels", [("cat", "dog", "cow"), ("red", "green", "cow")])
def test_folders_that_are_no_classes_of_the_model_are_not_measured(
    model: Model, request_of_folders: ConvertRequest, labels: tuple[str, ...]
) -> None:
    assert folder_classes(replace(model, labels=labels), request_of_folders) == ()


def test_another_number_of_folders_and_arrays_name_nothing(
    model: Model, request_of_folders: ConvertRequest, tmp_path: Path
) -> None:
    Image.new("RGB", (4, 4)).save(_made(tmp_path / "photos/violet") / "0.png")
    assert with_folder_labels(model, request_of_folders, print).labels is None
    np.save(tmp_path / "x.npy", np.zeros((4, 3, 8, 8), np.float32))
    assert folder_classes(model, ConvertRequest(calibration=tmp_path / "x.npy")) == ()


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
