from __future__ import annotations

import argparse
import gzip
import os
import shutil
import signal
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deploykit.accuracy.labelled_images import read_labelled_npz
from deploykit.cli import main
from deploykit.errors import EXIT_INTERRUPTED, SourceError, UserError
from deploykit_zoo import command, recipes
from deploykit_zoo.checkpoint import read_checkpoint, write_checkpoint
from deploykit_zoo.recipes import RECIPES

ROOT = Path(command.__file__).parents[2]
EXAMPLE = ROOT / "examples" / "checkpoints" / "shufflenet_v2.pt"


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(words))


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
        "import sys, deploykit_zoo.command; "
        "print([m for m in ('numpy', 'torch', 'timm', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'zoo'}"},
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


def test_the_page_shows_what_list_prints(capsys: pytest.CaptureFixture[str]) -> None:
    page = ROOT / "docs" / "zoo.md"

    assert run("list") == 0

    assert f"$ deploykit zoo list\n{capsys.readouterr().out}$ " in page.read_text(encoding="utf-8")


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


def test_all_that_was_interrupted_keeps_what_it_had_finished(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    few = {name: RECIPES[name] for name in ("mobilenet_v1", "shufflenet_v1")}
    monkeypatch.setattr(recipes, "RECIPES", few)
    words = ["train", "--all", "--data", str(folder), "--epochs", "1", "--out"]
    assert run(*words, str(tmp_path / "whole")) == 0
    stopped = tmp_path / "stopped"
    one = ["train", "mobilenet_v1", "--out", str(stopped / "mobilenet_v1.pt"), *words[2:-1]]
    assert run(*one) == 0
    capsys.readouterr()

    assert run(*words, str(stopped)) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"mobilenet_v1: {stopped / 'mobilenet_v1.pt'} is of this very training: kept"
    assert not [line for line in lines if line.startswith("wrote") and "mobilenet_v1" in line]
    assert [line for line in lines if line.startswith("wrote") and "shufflenet_v1" in line]
    name = "shufflenet_v1.pt"
    assert len((stopped / name).read_bytes()) > 100_000
    assert read_checkpoint(stopped / name).metrics == (
        read_checkpoint(tmp_path / "whole" / name).metrics
    )


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, EXIT_INTERRUPTED)]
)
def test_a_training_that_is_ended_leaves_no_checkpoint_and_goes_on(
    folder: Path, tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    out = tmp_path / "net.pt"
    words = [
        *(sys.executable, "-m", "deploykit", "zoo", "train", "mobilenet_v1"),
        *("--out", str(out), "--data", str(folder), "--epochs", "8"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("epoch 1/8"):
                process.send_signal(sent)
                break
        last = process.stdout.read()
    assert process.returncode == code
    assert ("interrupted: the same command goes on" in last) == (sent is signal.SIGINT)
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".pt"] == []
    assert (tmp_path / "net.pt.partial").exists()

    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=True)

    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"going on from {out}.partial, after epoch ")
    assert not [line for line in lines if line.startswith("epoch 1/8")]
    assert lines[-1].startswith(f"wrote {out}")
    assert read_checkpoint(out).training["epochs"] == 8
    assert not (tmp_path / "net.pt.partial").exists()


BROKEN_FOLDERS = {
    "nothing there": shutil.rmtree,
    "a file in its place": lambda folder: (shutil.rmtree(folder), folder.write_bytes(b"x")),
    "empty": lambda folder: [path.unlink() for path in folder.iterdir()],
    "without the test images": lambda folder: (folder / TEST_IMAGES).unlink(),
    "a folder for a file": lambda folder: (
        (folder / TEST_IMAGES).unlink(),
        (folder / TEST_IMAGES).mkdir(),
    ),
    "half a file": lambda folder: cut(folder / TEST_IMAGES),
    "labels of another split": lambda folder: shutil.copy(
        folder / "train-labels-idx1-ubyte.gz", folder / "t10k-labels-idx1-ubyte.gz"
    ),
}
TEST_IMAGES = "t10k-images-idx3-ubyte.gz"


def cut(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize("damage", BROKEN_FOLDERS)
@pytest.mark.parametrize("command", ["train", "evaluate", "sample"])
def test_a_broken_dataset_folder_is_exit_code_2(
    command: str, damage: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "data"
    shutil.copytree(folder, broken)
    BROKEN_FOLDERS[damage](broken)
    out = tmp_path / "out"
    words = {
        "train": ["train", "mobilenet_v1", "--out", str(out / "net.pt")],
        "evaluate": ["evaluate", str(EXAMPLE)],
        "sample": ["sample", "--out", str(out / "s.npz")],
    }[command]

    assert main(["zoo", *words, "--data", str(broken)]) == 2

    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "expected" in error
    assert not out.exists()


def test_a_checkpoint_of_other_classes_is_not_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = np.zeros((3, 28, 28, 1), np.uint8)
    data = tmp_path / "cats.npz"
    np.savez(data, images=images, labels=np.array([0, 1, 1]), classes=np.array(["cat", "dog"]))

    assert main(["zoo", "evaluate", str(EXAMPLE), "--data", str(data)]) == 2

    error = capsys.readouterr().err
    assert "cat, dog" in error
    assert "T-shirt/top, Trouser" in error


def test_a_checkpoint_whose_weights_are_of_another_family(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = replace(read_checkpoint(EXAMPLE), arch="timm/ghostnet_050")
    path = tmp_path / "net.pt"
    write_checkpoint(path, replace(checkpoint, arch_kwargs={"num_classes": 10}))

    for words in (["evaluate", str(path)], ["export", str(path), "--out", str(tmp_path / "a.pt2")]):
        assert main(["zoo", *words]) == 2
        assert f"the weights of {path} do not fit timm/ghostnet_050" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [path]


def test_export_of_a_family_under_whose_name_another_lies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(EXAMPLE, tmp_path / "ghostnet.pt")
    out = tmp_path / "a.onnx"
    words = ["export", "ghostnet", "--checkpoints", str(tmp_path), "--out", str(out)]

    assert main(["zoo", *words]) == 2

    error = capsys.readouterr().err
    assert "is of another family: it holds torchvision/shufflenet_v2_x0_5" in error
    assert "timm/ghostnet_050" in error
    assert not out.exists()


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
