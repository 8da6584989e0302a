from __future__ import annotations

import argparse
import gzip
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deploykit.cli import zoo
from deploykit.errors import SourceError, UserError
from deploykit.zoo import recipes
from deploykit.zoo.checkpoint import read_checkpoint
from deploykit.zoo.datasets import read_labelled_npz
from deploykit.zoo.recipes import RECIPES


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    zoo.add_arguments(parser)
    return zoo.run(parser.parse_args(words))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four files, with ten classes and as few images as the sample can be drawn from."""
    folder = tmp_path_factory.mktemp("idx")
    generator = np.random.default_rng(0)
    for prefix, count in (("train", 260), ("t10k", 1000)):
        images = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
            content = gzip.compress(header + array.tobytes(), compresslevel=1)
            (folder / f"{prefix}-{name}-ubyte.gz").write_bytes(content)
    return folder


def test_importing_the_command_imports_nothing_heavy() -> None:
    program = (
        "import sys, deploykit.cli.zoo; "
        "print([m for m in ('numpy', 'torch', 'timm', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(Path(zoo.__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines if line.startswith("ghostnet")] == [
        ["ghostnet", "timm/ghostnet_050", "3x64x64"]
    ]
    assert [line.split()[0] for line in lines] == sorted(RECIPES)


def test_train_and_evaluate_agree(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a b.pt"
    words = ["train", "ghostnet", "--out", str(out), "--data", str(folder), "--epochs", "1"]

    assert run(*words) == 0
    assert run("evaluate", str(out), "--data", str(folder)) == 0

    printed = capsys.readouterr().out
    checkpoint = read_checkpoint(out)
    correct = round(checkpoint.metrics["top1"] * 1000)
    assert f"({correct} of 1000 images)" in printed
    assert checkpoint.training["command"] == (
        f"deploykit zoo train ghostnet --out '{out}' --data {folder} --epochs 1"
    )
    assert checkpoint.calibration.shape == (128, 28, 28, 1)


def test_all_trains_every_family_as_its_own_command_does(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {name: RECIPES[name] for name in ("mobilenet_v1", "shufflenet_v1")}
    monkeypatch.setattr(recipes, "RECIPES", few)
    out = tmp_path / "new" / "folder"
    words = ["--data", str(folder), "--epochs", "1"]

    assert run("train", "--all", "--out", str(out), *words) == 0

    assert sorted(p.name for p in out.iterdir()) == ["mobilenet_v1.pt", "shufflenet_v1.pt"]
    before = (out / "shufflenet_v1.pt").read_bytes()
    assert run("train", "shufflenet_v1", "--out", str(out / "shufflenet_v1.pt"), *words) == 0
    assert (out / "shufflenet_v1.pt").read_bytes() == before


@pytest.mark.parametrize("words", [["ghostnet", "--all"], []])
def test_train_wants_a_family_or_all(words: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--all"):
        run("train", *words, "--out", str(tmp_path / "a.pt"))
    assert list(tmp_path.iterdir()) == []


def test_export_of_a_family_takes_its_checkpoint(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = tmp_path / "mobilenet_v1.pt"
    words = ["--data", str(folder), "--epochs", "1"]
    assert run("train", "mobilenet_v1", "--out", str(trained), *words) == 0
    by_family, by_file = tmp_path / "a.onnx", tmp_path / "b.onnx"

    assert (
        run("export", "mobilenet_v1", "--checkpoints", str(tmp_path), "--out", str(by_family)) == 0
    )
    assert run("export", str(trained), "--out", str(by_file)) == 0

    assert f"wrote {by_family}" in capsys.readouterr().out
    assert by_family.read_bytes() == by_file.read_bytes()


def test_export_of_a_family_that_is_not_trained_says_the_command(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="deploykit zoo train ghostnet --out"):
        run("export", "ghostnet", "--checkpoints", str(tmp_path), "--out", str(tmp_path / "a.onnx"))


def test_export_of_a_family_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no family 'resnet'"):
        run("export", "resnet", "--out", str(tmp_path / "a.onnx"))


def test_sample(folder: Path, tmp_path: Path) -> None:
    assert run("sample", "--out", str(tmp_path / "s.npz"), "--data", str(folder)) == 0

    sample = read_labelled_npz(tmp_path / "s.npz")
    assert np.bincount(sample.labels).tolist() == [100] * 10
    assert sample.calibration is not None
    assert sample.calibration.shape == (256, 28, 28, 1)


def test_a_family_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no family 'resnet'"):
        run("train", "resnet", "--out", str(tmp_path / "a.pt"))


@pytest.mark.parametrize(
    "words", [[], ["train", "ghostnet"], ["sample"], ["evaluate"], ["export", "ghostnet"]]
)
def test_a_command_that_is_not_whole(words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*words)

    assert caught.value.code == 2
