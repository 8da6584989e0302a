"""Files in the current folder that are called like packages are never imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

NAMES = (
    *("numpy", "torch", "onnx", "onnx_ir", "onnxruntime", "onnxsim", "coremltools", "ncnn"),
    *("ai_edge_litert", "timm", "tensorflow", "PIL", "yaml", "sympy", "ctypes", "json", "zipfile"),
)


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A folder in which an import of any of the names leaves a mark."""
    folder = tmp_path / "trap"
    folder.mkdir()
    for name in NAMES:
        mark = f"open({str(tmp_path / 'mark')!r}, 'a').write({name + ' '!r})\n"
        (folder / f"{name}.py").write_text(f"{mark}raise SystemExit('hijacked')\n")
    return folder


def deploykit(folder: Path, *arguments: str | Path, module: bool = False) -> None:
    """Run the command as it is installed, or as ``python -m deploykit``."""
    # -P is what the installed script amounts to: it has no current folder on its path.
    start = [sys.executable, *([] if module else ["-P"]), "-m", "deploykit"]
    done = subprocess.run(
        [*start, *map(str, arguments)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    mark = folder.parent / "mark"
    assert not mark.exists(), f"imported: {mark.read_text()}"


@pytest.mark.parametrize("module", [False, True])
def test_targets_and_doctor(trap: Path, module: bool) -> None:
    deploykit(trap, "targets", module=module)
    deploykit(trap, "doctor", module=module)


def test_convert_profile_and_verify(trap: Path, tiny_onnx: Path) -> None:
    deploykit(trap, "convert", tiny_onnx, "--to", "all", "--out", "out", "--samples", "2")
    deploykit(trap, "verify", "out")
    measured = ("--measure", "--runtime-profiler", "--rounds", "1")
    deploykit(trap, "profile", tiny_onnx, *measured, module=True)
