"""The comparison of two commits' artefacts tells what differs."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).resolve().parent


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_kind_of_difference_is_named() -> None:
    base = {"family/a": {"a.tflite": "1", "a.onnx": "2", "old.bin": "3"}, "family/b": {"b": "4"}}
    head = {"family/a": {"a.tflite": "1", "a.onnx": "9", "new.bin": "3"}, "family/b": {"b": "4"}}
    assert _script("compare_commits").differences(base, head) == [
        "family/a: a.onnx differs",
        "family/a: new.bin is new",
        "family/a: old.bin is missing",
    ]


def test_a_failed_conversion_ends_the_run_with_its_words(tmp_path: Path) -> None:
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"no checkpoint")
    with pytest.raises(RuntimeError, match=r"ended with 2: .*broken\.pt"):
        _script("hash_artifacts").hash_source(broken, python=Path(sys.executable))


def test_all_ten_families_are_sources() -> None:
    assert len(_script("hash_artifacts").family_sources()) == 10
