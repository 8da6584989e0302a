from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploykit import installation
from deploykit.accuracy import labelled_images
from deploykit.cli import main
from deploykit.installation import Package, needed_packages, why_not_installed


def give(monkeypatch: pytest.MonkeyPatch, lines: list[str], versions: dict[str, str]) -> None:
    def version(name: str) -> str:
        if name not in versions:
            raise installation.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(installation, "requires", lambda _: lines)
    monkeypatch.setattr(installation, "version", version)


LINES = ["numpy>=1.26", 'lite>=2.1; extra == "tflite"', 'flat<30,>=24.3; extra == "tflite"']


@pytest.mark.parametrize(
    ("versions", "problem"),
    [
        ({"lite": "2.1.0", "flat": "25.1"}, ""),
        ({"lite": "2.10", "flat": "24.3"}, ""),
        ({"flat": "25.1"}, "lite is not installed: pip install 'deploykit[tflite]'"),
        ({"lite": "2.0.9", "flat": "25"}, "lite is 2.0.9, >=2.1 is needed"),
        ({"lite": "3", "flat": "30.0.1"}, "flat is 30.0.1, <30,>=24.3 is needed"),
    ],
)
def test_a_target_is_installed_if_its_extra_is(
    monkeypatch: pytest.MonkeyPatch, versions: dict[str, str], problem: str
) -> None:
    give(monkeypatch, LINES, {"numpy": "2.0"} | versions)
    found = why_not_installed("tflite")
    assert found.startswith(problem)
    assert bool(found) == bool(problem)
    assert why_not_installed("onnx") == ""


def test_the_packages_own_metadata_can_be_read() -> None:
    names = {(p.extra, p.name) for p in needed_packages()}
    assert ("", "onnxruntime") in names
    assert ("tflite", "flatbuffers") in names
    assert all(p.name != "deploykit" for p in needed_packages())


def test_a_requirement_that_cannot_be_read_is_not_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    give(monkeypatch, ["?? 1"], {})
    with pytest.raises(ValueError, match="cannot be read"):
        needed_packages()
    with pytest.raises(ValueError, match="specifier"):
        Package("a", "about 3", "", "3").problem  # noqa: B018


def test_doctor_fails_only_for_what_is_needed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give(monkeypatch, LINES, {"numpy": "2.0", "flat": "25"})
    assert main(["doctor"]) == 0
    assert "pip install 'deploykit[tflite]'" in capsys.readouterr().out
    assert main(["doctor", "--need", "tflite", "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert found["usable"] is False
    assert found["commands"] == ["pip install 'deploykit[tflite]'"]
    assert main(["doctor", "--need", "onnx"]) == 0
    assert main(["doctor", "--need", "nothing"]) == 2
    assert "nothing is called nothing" in capsys.readouterr().err


def test_doctor_tells_where_the_dataset_is_and_what_brings_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(labelled_images, "FASHION_MNIST_FOLDER", tmp_path)
    names = [f"{split}-{kind}" for split in ("train", "t10k")
             for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]  # fmt: skip
    for name in names[:2]:
        (tmp_path / f"{name}.gz").write_bytes(b"")
    (tmp_path / names[2]).write_bytes(b"")
    assert main(["doctor"]) == 0, "a dataset is for training alone"
    text = capsys.readouterr().out
    assert f"MISSING dataset fashion-mnist: {tmp_path} lacks t10k-labels-idx1-ubyte" in text
    assert text.endswith("  apt-get install dataset-fashion-mnist\n")
    assert main(["doctor", "--need", "fashion-mnist", "--json"]) == 2
    (found,) = json.loads(capsys.readouterr().out)["datasets"]
    assert found["missing"] == ["t10k-labels-idx1-ubyte"]
    assert found["command"] == "apt-get install dataset-fashion-mnist"
    (tmp_path / names[3]).write_bytes(b"")
    assert main(["doctor", "--need", "fashion-mnist"]) == 0
    assert f"ok      dataset fashion-mnist: {tmp_path} (" in capsys.readouterr().out


def test_targets_are_listed_with_what_they_take(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["targets", "--json"]) == 0
    listed = {t["name"]: t for t in json.loads(capsys.readouterr().out)["targets"]}
    assert {"onnx", "tflite"} <= set(listed)
    options = {o["name"]: o for o in listed["onnx"]["options"]}
    assert options["onnx.activations"]["values"] == "int8, uint8"
    own = {o["name"] for o in listed["tflite"]["options"]}
    assert {"tflite.io", "tflite.input_layout", "tflite.softmax"} <= own
    assert listed["tflite"]["runners"][0]["name"] == "litert"
    assert main(["targets"]) == 0
    assert "onnx.per_channel=yes, no (yes)" in capsys.readouterr().out


def test_the_libraries_of_a_manifest_are_those_of_the_targets_that_were_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    give(monkeypatch, LINES, {"numpy": "2.0", "lite": "2.1.0"})

    written = installation.library_versions(["tflite"])

    assert {k: written[k] for k in written if k not in ("deploykit", "python")} == {
        "numpy": "2.0",
        "lite": "2.1.0",  # "flat" is not here
    }
    assert "lite" not in installation.library_versions(["onnx"])
