"""What a user can get wrong: each has a message, an exit code, and leaves the old bundle."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from deploykit.cli import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str]:
    """Exit code and standard error of one command."""
    code = main([str(a) for a in arguments])
    return code, capsys.readouterr().err


def refused(
    capsys: pytest.CaptureFixture[str], model: Path, *words: str, code: int = 2, more: tuple = ()
) -> None:
    out = model.parent / "bundle"
    got, err = run(capsys, "convert", model, "--out", out, "--quiet", *more)
    assert got == code, err
    assert err.startswith("error: ")
    assert "Traceback" not in err
    for word in words:
        assert word in err
    assert not out.exists()
    assert not list(model.parent.glob(".bundle*"))


def test_missing_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    refused(capsys, tmp_path / "none.pt", "none.pt")


def test_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    refused(capsys, tmp_path / "model")


def test_empty_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "empty.pt"
    path.write_bytes(b"")
    refused(capsys, path, "empty")


def test_truncated_zip(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "cut.pt"
    torch.save({"w": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:-200])
    refused(capsys, path, "cut.pt")


def test_text_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "notes.onnx"
    path.write_text("this is no model\n" * 20)
    refused(capsys, path, "notes.onnx")


def test_wrong_suffix_does_not_matter(
    capsys: pytest.CaptureFixture[str], tiny_onnx: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    tiny_onnx.rename(path)
    code, err = run(capsys, "convert", path, "--out", tmp_path / "b", "--quiet", "--no-verify")
    assert (code, err) == (0, "")


class _Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


def test_pickle_with_code_is_refused_and_not_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    plain = tmp_path / "bomb.pkl"
    plain.write_bytes(pickle.dumps(_Bomb(mark)))
    refused(capsys, plain)
    zipped = tmp_path / "bomb.pt"
    torch.save({"state_dict": {"w": torch.zeros(2)}, "extra": _Bomb(mark)}, zipped)
    refused(capsys, zipped)
    assert not mark.exists()


def test_checkpoint_without_architecture(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"conv.weight": torch.zeros(2, 2)}, path)
    refused(capsys, path, "--arch")


def test_nan_weights(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    build_network: Callable[..., onnx.ModelProto],
) -> None:
    model = build_network()
    broken = np.full((8,), np.nan, np.float32)
    model.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(broken, "b"))
    path = tmp_path / "nan.onnx"
    onnx.save(model, path)
    refused(capsys, path, "NaN", "b")


def test_dynamic_shape(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    build_network: Callable[..., onnx.ModelProto],
) -> None:
    model = build_network()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    path = tmp_path / "dynamic.onnx"
    onnx.save(model, path)
    refused(capsys, path, "height", "--input")


def test_dynamic_batch_is_pinned(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    build_network: Callable[..., onnx.ModelProto],
) -> None:
    path = tmp_path / "batch.onnx"
    onnx.save(build_network(batch="n"), path)
    code, err = run(capsys, "convert", path, "--out", tmp_path / "b", "--quiet", "--no-verify")
    assert (code, err) == (0, "")


def test_unsupported_ops_are_listed_together(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    build_network: Callable[..., onnx.ModelProto],
) -> None:
    path = tmp_path / "odd.onnx"
    onnx.save(build_network("Atanh"), path)
    refused(capsys, path, "Atanh", "extra", code=3)


@pytest.mark.parametrize("location", ["missing.bin", "../outside.bin", "/etc/hostname"])
def test_external_data(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    build_network: Callable[..., onnx.ModelProto],
    location: str,
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "outside.bin").write_bytes(bytes(4096))
    model = build_network()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    path = folder / "external.onnx"
    path.write_bytes(model.SerializeToString())
    refused(capsys, path, Path(location).name)


def test_int8_without_data_names_the_ways(
    capsys: pytest.CaptureFixture[str], tiny_onnx: Path
) -> None:
    refused(capsys, tiny_onnx, "--calibrate", "--w8", more=("--int8",))


def test_image_that_is_none(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_onnx: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.png").write_text("no image")
    refused(capsys, tiny_onnx, more=("--int8", "--calibrate", str(folder)))


def test_random_noise_does_not_calibrate(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_onnx: Path
) -> None:
    noise = np.random.default_rng(0).standard_normal((32, 3, 8, 8)).astype(np.float32)
    np.save(tmp_path / "noise.npy", noise)
    refused(capsys, tiny_onnx, "noise", more=("--int8", "--calibrate", str(tmp_path / "noise.npy")))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--to", "nowhere"), "tflite"),
        (("--limit", "int8.no_such=1"), "no_such"),
        (("--limit", "fp32.max_error_lsb=0"), "one of fp32.max_error_over_range"),
        (("--limit", "int8.snr_db=5"), "would verify nothing: the files are fp32"),
        (("--runner", "nobody"), "nobody"),
        (("--input", "1x3x"), "1x3x"),
        (("--observer", "median"), "median"),
    ],
)
def test_options_that_do_not_exist(
    capsys: pytest.CaptureFixture[str], tiny_onnx: Path, more: tuple[str, ...], words: str
) -> None:
    refused(capsys, tiny_onnx, words, more=more)


def _mounted(folder: Path) -> bool:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def test_full_disk_keeps_the_old_bundle(
    capsys: pytest.CaptureFixture[str], tiny_onnx: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    if not _mounted(disk):
        pytest.skip("a small file system cannot be mounted here")
    try:
        arguments = ("convert", tiny_onnx, "--out", disk / "b", "--quiet", "--no-verify")
        assert run(capsys, *arguments)[0] == 0
        before = (disk / "b" / "deploykit.json").read_bytes()
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
            while stream.write(bytes(1024)):
                pass
        code, err = run(capsys, *arguments)
        assert code == 2
        assert "disk is full" in err
        assert (disk / "b" / "deploykit.json").read_bytes() == before
        assert sorted(p.name for p in disk.iterdir()) == ["b", "filler"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_keeps_the_old_bundle(
    tiny_onnx: Path, images: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "b"
    out.mkdir()
    (out / "deploykit.json").write_text("old")
    command = [sys.executable, "-m", "deploykit", "convert", str(tiny_onnx), "--int8"]
    command += ["--calibrate", str(images), "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ})
    assert process.stderr is not None
    for line in process.stderr:  # at the first word of progress, the work is under way
        if "fused" in line:
            break
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted" in err
    assert "Traceback" not in err
    assert [p.name for p in out.iterdir()] == ["deploykit.json"]
    assert not list(tmp_path.glob(".b.*"))
    time.sleep(0.5)
    children = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, check=False)
    assert children.stdout == b""


@pytest.mark.parametrize("damage", ["no manifest", "no JSON", "other schema", "changed artefact"])
def test_verify_refuses_a_damaged_bundle(
    capsys: pytest.CaptureFixture[str], tiny_onnx: Path, tmp_path: Path, damage: str
) -> None:
    out = tmp_path / "b"
    assert run(capsys, "convert", tiny_onnx, "--out", out, "--quiet", "--samples", "2")[0] == 0
    manifest = out / "deploykit.json"
    if damage == "no manifest":
        manifest.unlink()
    elif damage == "no JSON":
        manifest.write_text(manifest.read_text()[:-40])
    elif damage == "other schema":
        manifest.write_text(manifest.read_text().replace("deploykit.bundle/2", "other/9"))
    else:
        file = next(out.glob("*.tflite"))
        file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    code, err = run(capsys, "verify", out)
    assert code == 2
    assert err.startswith("error: ")


def test_damaged_artefact_is_inspected_politely(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "broken.tflite"
    path.write_bytes(b"\x1c\x00\x00\x00TFL3" + b"\xff" * 40)
    code, err = run(capsys, "inspect", path)
    assert code == 2
    assert "broken.tflite" in err


def test_zip_that_is_no_model(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "hello")
    refused(capsys, path, "photos.zip")


def test_calibration_table_of_another_model(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    tiny_onnx: Path,
    images: Path,
    build_network: Callable[..., onnx.ModelProto],
) -> None:
    out = tmp_path / "first"
    # A table alone gives ranges, and no layer inputs to round by.
    arguments = ("--int8", "--quiet", "--no-verify", "--method", "minmax")
    first = run(capsys, "convert", tiny_onnx, "--calibrate", images, "--out", out, *arguments)
    assert first == (0, "")
    table = out / "calibration.json"
    again = run(
        capsys, "convert", tiny_onnx, "--calibration-table", table, "--out", tmp_path / "second",
        *arguments,
    )  # fmt: skip
    assert again == (0, "")
    artefact = "tiny.int8.tflite"
    assert (out / artefact).read_bytes() == (tmp_path / "second" / artefact).read_bytes()
    retrained = build_network()
    raw = np.full((8,), 0.25, np.float32)
    retrained.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(raw, "b"))
    other = tmp_path / "retrained.onnx"
    onnx.save(retrained, other)
    refused(capsys, other, "another model", more=("--int8", "--calibration-table", str(table)))


@pytest.mark.parametrize(
    "text", ["no json", "[1]", '{"size": [8, 8], "colour": "RGB"}', '{"size": [16, 16]}']
)
def test_a_contract_that_is_none_or_does_not_fit(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_onnx: Path, text: str
) -> None:
    contract = tmp_path / "contract.json"
    contract.write_text(text)
    np.savez(tmp_path / "p.npz", images=np.zeros((16, 8, 8, 3), np.uint8))
    more = ("--preprocess", str(contract), "--int8", "--calibrate", str(tmp_path / "p.npz"))
    refused(capsys, tiny_onnx, more=more)


def test_images_for_an_onnx_file_go_through_the_contract_that_is_given(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_onnx: Path
) -> None:
    from PIL import Image

    generator = np.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(16):
        coarse = generator.integers(0, 256, (3, 3, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((20, 20)).save(folder / f"{index}.png")
    contract = tmp_path / "contract.json"
    contract.write_text('{"size": [8, 8]}')
    out = tmp_path / "bundle"
    arguments = ("--int8", "--calibrate", folder, "--preprocess", contract, "--samples", "4")
    code, err = run(capsys, "convert", tiny_onnx, "--out", out, "--quiet", *arguments)
    assert code == 0, err
    assert '"size": [' in (out / "deploykit.json").read_text()
