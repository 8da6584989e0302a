"""The wheel holds what it should: packages, type marks, the entry points, and no tests."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    pytest.importorskip("hatchling", reason="hatchling is not installed (extra [dev])")
    folder = tmp_path_factory.mktemp("wheel")
    code = (
        "import sys, os\nfrom hatchling.builders.wheel import WheelBuilder\n"
        "print(*WheelBuilder(sys.argv[1]).build(directory=sys.argv[2], versions=['standard']))"
    )
    subprocess.run([sys.executable, "-c", code, str(ROOT), str(folder)], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_wheel_holds_every_package_and_its_type_mark(wheel_names: list[str]) -> None:
    for package in ("deploykit", "deploykit_tflite", "deploykit_quantize"):
        assert f"{package}/py.typed" in wheel_names
        assert f"{package}/__init__.py" in wheel_names


def test_wheel_holds_no_tests(wheel_names: list[str]) -> None:
    assert [n for n in wheel_names if n.endswith("_test.py") or n.startswith("tests/")] == []


def test_wheel_names_are_ours_only(wheel_names: list[str]) -> None:
    tops = {n.split("/")[0] for n in wheel_names}
    assert {t for t in tops if not t.startswith("deploykit")} == set()


def test_sdist_holds_what_its_own_tests_need(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling is not installed (extra [dev])")
    code = (
        "import sys\nfrom hatchling.builders.sdist import SdistBuilder\n"
        "print(*SdistBuilder(sys.argv[1]).build(directory=sys.argv[2]))"
    )
    subprocess.run([sys.executable, "-c", code, str(ROOT), str(tmp_path)], check=True)
    (path,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "Makefile",
        "conftest.py",
        "pyproject.toml",
        "test_support/deploykit_testing/graphs.py",
    } <= names
