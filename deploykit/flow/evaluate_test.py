from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import deploykit
from deploykit.cli import main
from deploykit.errors import BundleError, DataError, SourceError
from deploykit.flow.convert import convert
from deploykit.flow.evaluate import evaluate
from deploykit.flow.plan import ConvertRequest
from deploykit.preprocess import Preprocess
from deploykit.report.accuracy_views import render_accuracy

#: The mean of each colour is the score of its class.
NETWORK = """
<ir_version: 9, opset_import: ["" : 20]>
colours (float[1,3,8,8] x) => (float[1,3] y) {
    mean = GlobalAveragePool (x)
    y = Flatten (mean)
}
"""
COLOURS = ("red", "green", "blue")
CONTRACT = Preprocess(size=(8, 8), mean=(0.0,) * 3, std=(1.0,) * 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source, bundles with and without labels, and photos of any size in class folders."""
    folder = tmp_path_factory.mktemp("evaluate")
    onnx.save(onnx.parser.parse_model(NETWORK), folder / "colours.onnx")
    model = replace(deploykit.load(folder / "colours.onnx"), preprocess=CONTRACT)
    for name, labels in (("b", COLOURS), ("nameless", None)):
        request = ConvertRequest(targets=("onnx",), precisions=("fp32",), out=folder / name)
        convert(replace(model, labels=labels), request)
    rng = np.random.default_rng(0)
    lines = ["file,label"]
    for index, colour in enumerate(COLOURS):
        (folder / "photos" / colour / "more").mkdir(parents=True)
        for number in range(6):
            size = rng.integers(9, 40, 2)
            pixels = rng.integers(0, 60, (*size, 3)).astype(np.uint8)
            pixels[..., index if number else (index + 1) % 3] += 150  # the first is wrong
            place = Path("photos", colour, "more" if number % 2 else ".", f"{number}.png")
            Image.fromarray(pixels).save(folder / place)
            lines.append(f"{place.as_posix()},{colour if number % 2 else index}")
    (folder / "photos" / "labels.txt").write_text("no image")
    (folder / "list.csv").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize("data", ["photos", "list.csv"])
def test_photos_of_any_size_are_evaluated_by_folders_or_a_list(folder: Path, data: str) -> None:
    table = evaluate(folder / "b", folder / data, source=str(folder / "colours.onnx"))
    reference, row = table.rows
    assert (reference.correct, reference.total) == (15, 18)
    assert (row.correct, row.agreement, row.outcome) == (15, 1.0, "pass")
    assert row.images_per_s > 0
    assert row.top5 is None
    assert (table.classes, table.near_chance) == (3, False)


def test_folders_of_a_model_without_labels_are_its_classes_in_the_order_of_their_names(
    folder: Path,
) -> None:
    """Blue, green, red are another order than the model's, and its own top-1 shows that."""
    table = evaluate(folder / "nameless", folder / "photos", source=str(folder / "colours.onnx"))
    assert table.rows[0].correct < 9
    assert table.near_chance
    assert {row.outcome for row in table.rows} == {""}
    assert "is near chance" in render_accuracy(table)


def test_the_command_prints_and_exits_by_the_agreement(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", str(folder / "b"), "--data", str(folder / "photos"), "--quiet"]
    assert main([*words, "--source", str(folder / "colours.onnx"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["outcome"] for row in document["rows"]] == ["", "pass"]
    assert main(words) == 0
    assert "no reference: give the source model" in capsys.readouterr().out


def test_what_changed_is_told_class_by_class(folder: Path) -> None:
    from deploykit.accuracy.top1 import Top1
    from deploykit.flow.evaluate import _row

    labels = np.array([0, 0, 1, 1, 2, 2, 2, 2])
    before = Top1(6, 8, np.array([0, 1, 1, 1, 2, 2, 2, 0]), labels)
    after = Top1(5, 8, np.array([0, 0, 1, 1, 0, 0, 2, 0]), labels)
    row = _row("net.onnx", "int8", "ort", 1, after, before, COLOURS)
    assert [(c.before, c.after, c.images, c.mended) for c in row.changes] == [
        ("blue", "red", 2, 0),
        ("green", "red", 1, 1),
    ]
    assert (row.agreement, row.outcome) == (5 / 8, "fail")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("unknown folder", "the folders violet of"),
        ("no folders", "no class folders"),
        ("missing file", "not there: .*gone.png"),
        ("unknown label", "the labels violet of"),
        ("three columns", "has 3 columns"),
    ],
)
def test_labels_that_do_not_fit_are_named(
    folder: Path, tmp_path: Path, change: str, words: str
) -> None:
    photo = folder / "photos" / "red" / "0.png"
    data = tmp_path / "data.csv"
    if "folder" in change:
        data = tmp_path / "photos"
        (data / "violet").mkdir(parents=True)
        (data / ("violet" if change == "unknown folder" else ".") / "a.png").write_bytes(
            photo.read_bytes()
        )
    else:
        lines = {
            "missing file": "gone.png,red",
            "unknown label": f"{photo},violet",
            "three columns": f"{photo},red,1",
        }
        data.write_text(lines[change])
    with pytest.raises(DataError, match=words) as caught:
        evaluate(folder / "b", data)
    assert "ashion" not in str(caught.value)


def test_another_source_and_a_remembered_callable_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other.onnx").write_bytes((folder / "colours.onnx").read_bytes() + b"\0")
    with pytest.raises(SourceError, match="is not what the bundle was made from"):
        evaluate(folder / "b", folder / "photos", source=str(tmp_path / "other.onnx"))
    manifest = json.loads((folder / "b" / "deploykit.json").read_text())
    for load, words in (
        ({"callable": True}, "which a file never chooses"),
        ({"in_memory": True}, "a module in memory"),
        ({"input_shape": ["x"]}, "cannot be read"),
    ):
        changed = {**manifest, "made": {**manifest["made"], "load": load}}
        (folder / "b" / "deploykit.json").write_text(json.dumps(changed))
        with pytest.raises(BundleError, match=words):
            evaluate(folder / "b", folder / "photos", source=str(folder / "colours.onnx"))
    evil = {"arch": "os:system", "arch_kwargs": {}}
    changed = {**manifest, "made": {**manifest["made"], "load": evil}}
    (folder / "b" / "deploykit.json").write_text(json.dumps(changed))
    with pytest.raises(SourceError, match="a file cannot choose code"):
        evaluate(folder / "b", folder / "photos", source=str(folder / "colours.onnx"))
    (folder / "b" / "deploykit.json").write_text(json.dumps(manifest))
