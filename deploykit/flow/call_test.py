"""The functions as Python calls them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

import deploykit
from deploykit.errors import DataError, MissingDependencyError, UserError
from deploykit.flow.call import as_python

_TEXT = """
<ir_version: 10, opset_import: ["" : 21]>
classifier (float[1, 3, 8, 8] x) => (float[1, 3] y)
<float[3, 3, 1, 1] W = {1, 0, 0, 0, 1, 0, 0, 0, 1}>
{
    c = Conv (x, W)
    r = Relu (c)
    m = GlobalAveragePool (r)
    y = Flatten (m)
}
"""
_CONTRACT = {"size": [8, 8], "mean": 0.0, "std": 1.0}
_COUNT = 24


@pytest.fixture
def source(tmp_path: Path) -> Path:
    onnx.save(onnx.parser.parse_model(_TEXT), tmp_path / "classifier.onnx")
    return tmp_path / "classifier.onnx"


def _tensors() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).random((_COUNT, 3, 8, 8), np.float32)


def _images() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, (_COUNT, 11, 9, 3), np.uint8)


def _generator() -> Iterator[Any]:
    yield from _tensors()


class _Loader:
    """What a torch DataLoader looks like from outside: pairs of batches, no sample by number."""

    batch_size = 7
    dataset = "any"

    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, _COUNT, self.batch_size):
            yield _tensors()[start : start + self.batch_size], np.zeros(self.batch_size, np.int64)


def _written(folder: Path) -> bytes:
    return (folder / "classifier.int8.onnx").read_bytes()


def test_an_array_an_iterable_and_a_loader_of_the_same_samples_give_the_same_file(
    source: Path, tmp_path: Path
) -> None:
    model = deploykit.load(str(source), preprocess=_CONTRACT, labels=["a", "b", "c"])
    np.save(tmp_path / "samples.npy", _tensors())
    data: dict[str, Callable[[], object]] = {
        "array": _tensors,
        "list": lambda: list(_tensors()),
        "generator": _generator,
        "pairs": lambda: [(sample, 0) for sample in _tensors()],
        "loader": _Loader,
        "path": lambda: str(tmp_path / "samples.npy"),
        "doubles": lambda: _tensors().astype(np.float64),
    }
    for name, given in data.items():
        result = deploykit.convert(
            model,
            to="onnx",
            int8=True,
            calibration=given(),
            out=str(tmp_path / name),
            verify=False,
            method="minmax",
            allow_suspicious=True,  # noise serves here
        )
        assert result.folder == tmp_path / name
    assert len({_written(tmp_path / name) for name in data}) == 1


def test_images_go_through_the_contract_and_results_are_short(source: Path, tmp_path: Path) -> None:
    model = deploykit.load(source, preprocess=_CONTRACT, labels=["<b>red", "green", "blue"])
    result = deploykit.convert(
        model,
        to=["onnx"],
        fp32=True,
        int8=True,
        calibration=_images(),
        out=tmp_path / "bundle",
        allow_suspicious=True,
    )
    assert [a.precision for a in result.bundle.artifacts] == ["fp32", "int8"]
    for shown in (model, result, result.report, result.bundle):
        assert len(repr(shown)) < 1_000
        assert "\n" not in repr(shown)
    assert "<table>" in result._repr_html_()
    assert "int8" in result.report._repr_html_()
    assert deploykit.verify(tmp_path / "bundle").passed
    Image.new("RGB", (20, 30), (0, 255, 0)).save(tmp_path / "green.png")
    runs = deploykit.run(str(tmp_path / "bundle"), str(tmp_path / "green.png"))
    assert {one.guesses[0].label for one in runs} == {"green"}
    assert "Conv" in deploykit.inspect_file(tmp_path / "bundle/classifier.fp32.onnx")


def test_a_frame_has_a_row_a_verdict(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = deploykit.convert(source, to="onnx", fp32=True, out=tmp_path / "bundle").report
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "pandas", None)
        with pytest.raises(MissingDependencyError, match=re.escape("deploykit[notebook]")):
            report.to_frame()
    pytest.importorskip("pandas", reason="pandas is not installed (extra [notebook])")
    frame = report.to_frame()
    assert len(frame) == len(report.verdicts)
    assert set(frame["outcome"]) == {"pass"}


def test_errors_name_arguments_of_python(source: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape("calibration=")) as caught:
        deploykit.convert(source, to="onnx", int8=True, out=tmp_path / "bundle")
    assert "--" not in str(caught.value)
    with pytest.raises(UserError, match="no argument calibrate"):
        deploykit.convert(source, calibrate="photos")
    with pytest.raises(UserError, match="labels= has 2 names"):
        deploykit.load(source, labels=["a", ""])
    with pytest.raises(UserError, match="there is no file"):
        deploykit.inspect_file(tmp_path / "nothing.onnx")
    assert not (tmp_path / "bundle").exists()


def test_what_a_conversion_into_a_bundle_drops_is_said(source: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    for precisions in ({"fp32": True}, {"fp32": True}, {"fp16": True}):
        deploykit.convert(
            source, to="onnx", out=tmp_path / "b", verify=False, progress=lines.append, **precisions
        )
    (said,) = [line for line in lines if line.startswith("replaces")]
    assert said.endswith("without its classifier.fp32.onnx")


@pytest.mark.parametrize(
    ("flag", "argument"),
    [
        ("give --calibrate FOLDER", "give calibration= FOLDER"),
        ("(--int8 or --fp32)", "(int8=True or fp32=True)"),
        ("a--b and pre--int8", "a--b and pre--int8"),
        ("--samples N", "samples= N"),
    ],
)
def test_flags_become_arguments(flag: str, argument: str) -> None:
    assert as_python(flag) == argument
