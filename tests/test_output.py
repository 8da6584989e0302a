"""What stands where a command would write: it is replaced only if nothing of anybody is lost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deploykit.cli import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str]:
    """Exit code and standard error of one command."""
    code = main([str(a) for a in arguments])
    return code, capsys.readouterr().err


def test_output_that_holds_something_else(
    capsys: pytest.CaptureFixture[str], tiny_onnx: Path, tmp_path: Path
) -> None:
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter1.tex").write_text("dear")
    code, err = run(capsys, "convert", tiny_onnx, "--out", out, "--quiet", "--no-verify")
    assert code == 2
    assert "chapter1.tex" in err
    assert (out / "chapter1.tex").read_text() == "dear"


def test_output_with_other_files_in_a_bundle(
    capsys: pytest.CaptureFixture[str], tiny_onnx: Path, tmp_path: Path
) -> None:
    out = tmp_path / "b"
    arguments = ("convert", tiny_onnx, "--out", out, "--quiet", "--no-verify")
    assert run(capsys, *arguments)[0] == 0
    assert run(capsys, *arguments)[0] == 0
    before = {p: p.read_bytes() for p in out.iterdir()}
    for name in ("notes.txt", "sub/deep.txt", "golden.npz/x"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("dear")
        code, err = run(capsys, *arguments)
        assert code == 2
        assert "other files in it" in err
        assert (out / name).read_text() == "dear"
        (out / name).unlink()
        if "/" in name:
            (out / name).parent.rmdir()
    assert {p: p.read_bytes() for p in out.iterdir()} == before
    (out / "link").symlink_to(tmp_path)
    assert run(capsys, *arguments)[0] == 2
    assert tiny_onnx.exists()


def test_source_in_the_output_folder(
    capsys: pytest.CaptureFixture[str], tiny_onnx: Path, tmp_path: Path
) -> None:
    out = tmp_path / "b"
    arguments = ("--to", "onnx", "--out", out, "--quiet", "--no-verify")
    assert run(capsys, "convert", tiny_onnx, *arguments)[0] == 0
    made = next(out.glob("*.onnx"))
    before = made.read_bytes()
    code, err = run(capsys, "convert", made, *arguments)
    assert code == 2
    assert "is in the output folder" in err
    assert made.read_bytes() == before


@pytest.mark.parametrize("what", ["pipe", "link to a device"])
def test_reports_never_replace_what_is_no_file(
    capsys: pytest.CaptureFixture[str], tiny_onnx: Path, tmp_path: Path, what: str
) -> None:
    path = tmp_path / "report.html"
    if what == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(os.devnull)
    code, err = run(capsys, "profile", tiny_onnx, "--html", path)
    assert code == 2
    assert "report.html is a" in err
    assert not path.is_file()
    assert path.exists()


def test_output_below_a_file(
    capsys: pytest.CaptureFixture[str], tiny_onnx: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    out = tmp_path / "file" / "bundle"
    code, err = run(capsys, "convert", tiny_onnx, "--out", out, "--quiet", "--no-verify")
    assert code == 2
    assert "cannot be made" in err
