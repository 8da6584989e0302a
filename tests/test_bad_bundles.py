"""Bundles of every target that something is wrong with: an error or a verdict, no traceback."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import onnx
import pytest

from deploykit.bundle import MANIFEST, read_bundle
from deploykit.cli import main
from deploykit.target import available_targets

TARGETS = sorted(available_targets())
#: Target → the packages that reading, writing or running its files needs, and their extra.
PACKAGES = {
    "coreml": ("coremltools", "coreml"),
    "ncnn": ("ncnn", "ncnn"),
    "onnx": ("onnxruntime", "all"),
    "tflite": ("ai_edge_litert", "tflite"),
}


def _overwritten(data: bytes) -> bytes:
    middle = len(data) // 3
    return data[:middle] + b"\xff" * (len(data) // 3) + data[2 * middle :]


DAMAGES: Mapping[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut": lambda data: data[: len(data) // 2],
    "overwritten": _overwritten,
    "another format": lambda _: b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4,
}


@pytest.fixture(scope="module")
def sound(
    tmp_path_factory: pytest.TempPathFactory, build_network: Callable[..., onnx.ModelProto]
) -> Path:
    """The tiny network as every target's fp32."""
    folder = tmp_path_factory.mktemp("sound")
    onnx.save(build_network(), folder / "tiny.onnx")
    words = ["convert", folder / "tiny.onnx", "--to", "all", "--fp32", "--out", folder / "b"]
    assert main([*map(str, words), "--quiet", "--samples", "2"]) == 0
    return folder / "b"


def _files(folder: Path) -> list[tuple[str, str]]:
    """(target, file) of everything that the manifest lists."""
    return [(a.target, f.path) for a in read_bundle(folder).artifacts for f in a.files]


def _damage(folder: Path, path: str, damage: Callable[[bytes], bytes]) -> None:
    """Damage a file and make the manifest's hash match, so that the runtime itself meets it."""
    file = folder / path
    file.write_bytes(damage(file.read_bytes()))
    document = json.loads((folder / MANIFEST).read_text())
    for artifact in document["artifacts"]:
        for entry in artifact["files"]:
            if entry["path"] == path:
                entry["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
                entry["bytes"] = file.stat().st_size
    (folder / MANIFEST).write_text(json.dumps(document))


def _only(folder: Path, target: str) -> None:
    """Leave the artefacts of one target in the manifest."""
    document = json.loads((folder / MANIFEST).read_text())
    document["artifacts"] = [a for a in document["artifacts"] if a["target"] == target]
    (folder / MANIFEST).write_text(json.dumps(document))


@pytest.mark.parametrize("name", list(DAMAGES))
@pytest.mark.parametrize("target", TARGETS)
def test_a_runtime_that_meets_a_damaged_file_gives_verdicts(
    sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], target: str, name: str
) -> None:
    paths = [path for owner, path in _files(sound) if owner == target]
    assert paths
    for number, path in enumerate(paths):
        folder = tmp_path / str(number)
        shutil.copytree(sound, folder)
        _damage(folder, path, DAMAGES[name])
        _only(folder, target)
        code = main(["verify", str(folder)])  # an exception would escape, and fail the test
        text = capsys.readouterr().out
        assert code == 1, path
        rows = [line for line in text.splitlines() if line.startswith(f"{target}  ")]
        assert rows
        for row in rows:
            assert row.endswith(("FAIL", "CRASHED")), path
        assert f"({Path(path).parts[0].rpartition('.')[0]}" in text


@pytest.mark.parametrize("target", TARGETS)
def test_a_file_whose_hash_does_not_match_is_named(
    sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], target: str
) -> None:
    for owner, path in _files(sound):
        if owner != target:
            continue
        folder = tmp_path / hashlib.sha256(path.encode()).hexdigest()[:8]
        shutil.copytree(sound, folder)
        with (folder / path).open("ab") as stream:
            stream.write(b"\0")
        assert main(["verify", str(folder)]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {folder / path} has SHA-256")
        (folder / path).unlink()
        assert main(["verify", str(folder)]) == 2
        assert f"{folder / path} is missing" in capsys.readouterr().err


@pytest.mark.parametrize("target", TARGETS)
def test_a_missing_package_is_told_with_the_command_that_installs_it(
    sound: Path,
    tiny_onnx: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    target: str,
) -> None:
    package, extra = PACKAGES[target]
    folder = tmp_path / "copy"
    shutil.copytree(sound, folder)
    _only(folder, target)
    for loaded in [n for n in sys.modules if n == package or n.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, package, None)
    out = tmp_path / "new"
    for words in (
        ["verify", folder],
        ["convert", tiny_onnx, "--to", target, "--fp32", "--out", out, "--quiet"],
        ["convert", tiny_onnx, "--to", f"{target},{_other(target)}", "--fp32", "--out", out],
    ):
        assert main([str(w) for w in words]) == 2
        error = capsys.readouterr().err
        assert f"needs the package '{package}', which is not installed" in error
        assert f"what to do: pip install 'deploykit[{extra}]'" in error
        assert not out.exists()


@pytest.mark.parametrize(
    ("target", "package", "needed"),
    [
        ("coreml", "coremltools", True),
        ("tflite", "ai_edge_litert", True),
        ("tflite", "flatbuffers", True),
        ("ncnn", "ncnn", False),
        ("onnx", "onnxruntime", False),
    ],
)
def test_writing_alone_needs_a_package_only_if_the_writer_does(
    tiny_onnx: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    target: str,
    package: str,
    needed: bool,
) -> None:
    for loaded in [n for n in sys.modules if n == package or n.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, package, None)
    words = ["convert", tiny_onnx, "--to", target, "--fp32", "--out", tmp_path / "b"]
    code = main([*map(str, words), "--no-verify", "--quiet"])
    assert code == (2 if needed else 0), capsys.readouterr().err
    if needed:
        assert f"pip install 'deploykit[{target}]'" in capsys.readouterr().err


def _other(target: str) -> str:
    return next(name for name in TARGETS if name != target)


def test_a_bundle_of_a_target_that_is_not_here_is_told(
    sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(sound, folder)
    text = (folder / MANIFEST).read_text().replace('"target": "ncnn"', '"target": "tengine"')
    (folder / MANIFEST).write_text(text)
    assert main(["verify", str(folder)]) == 2
    assert "no target is called 'tengine'" in capsys.readouterr().err
