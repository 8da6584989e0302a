"""Damaged ncnn files given to `verify` and `inspect`: an error or a verdict, never a traceback."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("ncnn", reason="ncnn is not installed (extra [ncnn])")

from deploykit.bundle import MANIFEST
from deploykit.cli import main

PARAM, BIN = "tiny.fp32.param", "tiny.fp32.bin"
BODY = """<ir_version: 10, opset_import: ["" : 20]>
g (float[1,3,12,12] x) => (float[1,5] y) <int64[2] sizes = {8, 8}, int64[2] flat = {1, 16}> {
    c = Conv<kernel_shape=[3,3]>(x, W)
    a, b = Split<axis=1>(c, sizes)
    r = Relu(a)
    j = Concat<axis=1>(b, r)
    p = GlobalAveragePool(j)
    f = Reshape(p, flat)
    y = Gemm<transB=1>(f, V)
}"""

Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    proto = onnx.parser.parse_model(BODY)
    generator = np.random.default_rng(0)
    for name, shape in (("W", (16, 3, 3, 3)), ("V", (5, 16))):
        array = generator.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(proto, folder / "tiny.onnx")
    out = folder / "bundle"
    arguments = ["convert", str(folder / "tiny.onnx"), "--to", "ncnn", "--out", str(out)]
    assert main([*arguments, "--quiet", "--samples", "2", "--runner", "ncnn"]) == 0
    return out


def replaced(old: str, new: str) -> Damage:
    """Another text in the .param file."""

    def damage(folder: Path) -> None:
        text = (folder / PARAM).read_text()
        assert old in text
        (folder / PARAM).write_text(text.replace(old, new))

    return damage


def weights(change: Callable[[bytes], bytes]) -> Damage:
    """Other bytes in the .bin file."""
    return lambda folder: (folder / BIN).write_bytes(change((folder / BIN).read_bytes()))


def cut_param(folder: Path) -> None:
    text = (folder / PARAM).read_text()
    (folder / PARAM).write_text(text[: len(text) // 2])


def make_hashes_match(folder: Path) -> None:
    """Write the files' hashes into the manifest: now only the runtime can tell."""
    manifest = json.loads((folder / MANIFEST).read_text())
    (artifact,) = manifest["artifacts"]
    for file in artifact["files"]:
        data = (folder / file["path"]).read_bytes()
        file.update(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
    artifact["bytes"] = sum(file["bytes"] for file in artifact["files"])
    (folder / MANIFEST).write_text(json.dumps(manifest))


#: Damage → what it does, what both commands say of it.
BROKEN: dict[str, tuple[Damage, str]] = {
    "cut .param": (cut_param, "is damaged"),
    "wrong count of layers": (replaced("\n7 ", "\n90 "), "90 layers and 8 blobs are announced"),
    "wrong count of blobs": (replaced("\n7 8\n", "\n7 1\n"), "1 blobs are announced"),
    "a blob read before it is made": (
        replaced("1 1 in0 c", "1 1 a c"),
        "'c' reads 'a', which no layer before makes",
    ),
    "bytes that are no text": (
        lambda folder: (folder / PARAM).write_bytes(b"7767517\n7 8\n" + bytes(range(256))),
        "cannot be read",
    ),
    "cut .bin": (weights(lambda b: b[: len(b) // 2]), "bytes are there, and layer"),
    "empty .bin": (weights(lambda b: b""), "0 bytes are there, and layer"),
    "a .bin too long": (weights(lambda b: b + bytes(64)), "the layers need"),
    "a tag that does not exist": (weights(lambda b: b"\1\2\3\4" + b[4:]), "have the tag"),
}

#: What only the runtime notices → what it does, what the verdict says of it.
RUNTIME: dict[str, tuple[Damage, str]] = {
    "a type that does not exist": (
        replaced("Convolution ", "Konvolution "),
        "layer Konvolution not exists",
    ),
    "fewer weights than the kernel has": (replaced("6=432", "6=431"), "have the tag"),
    "a stride below zero": (replaced("1=3 ", "1=3 3=-2 "), "refuses the layers"),
    "an output of another name": (replaced("out0", "outx"), "no output 'out0'"),
    "an input of another name": (replaced("in0", "inx"), "inputs of the file"),
}


@pytest.fixture
def copy(bundle_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle_folder, tmp_path / "copy"))


@pytest.mark.parametrize("damage", BROKEN)
def test_a_broken_file_is_an_error(
    damage: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, words = BROKEN[damage]
    change(copy)
    assert main(["verify", str(copy), "--runner", "ncnn"]) == 2
    assert "as the manifest says" in capsys.readouterr().err
    assert main(["inspect", str(copy / PARAM)]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("damage", [*BROKEN, *RUNTIME])
def test_where_the_hashes_match_it_is_a_failed_verdict(
    damage: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, words = (BROKEN | RUNTIME)[damage]
    change(copy)
    make_hashes_match(copy)
    assert main(["verify", str(copy), "--runner", "ncnn"]) == 1
    said = capsys.readouterr()
    assert words in said.out
    assert "Traceback" not in said.out + said.err


def test_a_wrong_magic_number_is_no_param_file(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replaced("7767517", "7767518")(copy)
    assert main(["inspect", str(copy / PARAM)]) == 2
    assert "is a text file" in capsys.readouterr().err
    make_hashes_match(copy)
    assert main(["verify", str(copy), "--runner", "ncnn"]) == 1
    assert "first line 7767517" in capsys.readouterr().out


@pytest.mark.parametrize("name", [PARAM, BIN])
def test_a_missing_file(name: str, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / name).unlink()
    assert main(["verify", str(copy)]) == 2
    assert f"{name} is missing" in capsys.readouterr().err
    assert main(["inspect", str(copy / PARAM)]) == 2
    assert name in capsys.readouterr().err


def test_a_file_that_kills_the_runtime_is_a_verdict_with_its_last_words(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A slice of far more channels than there are: ncnn reads behind the blob's end.
    replaced("=2,8,8", "=2,8,1600000")(copy)
    make_hashes_match(copy)
    assert main(["verify", str(copy), "--runner", "ncnn"]) == 1
    said = capsys.readouterr()
    assert "SIGSEGV" in said.out
    assert "Traceback" not in said.out + said.err
    assert main(["inspect", str(copy / PARAM)]) == 0
