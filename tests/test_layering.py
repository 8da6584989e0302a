"""Who may import whom, and what may be imported when."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TARGETS = sorted(p.name for p in (ROOT / "converters").iterdir() if (p / "__init__.py").exists())
HEAVY = ("torch", "timm", "torchvision", "onnxruntime", "onnxsim", "coremltools", "ncnn",
         "ai_edge_litert", "onnx", "onnx_ir", "numpy", "PIL")  # fmt: skip


def _imports(folder: Path) -> dict[Path, set[str]]:
    found = {}
    for path in sorted(folder.rglob("*.py")):
        if path.name.endswith("_test.py"):
            continue
        names = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module)
        found[path] = names
    return found


def test_there_are_targets() -> None:
    assert "deploykit_tflite" in TARGETS


def test_core_imports_no_target() -> None:
    offenders = {
        str(path.relative_to(ROOT)): sorted(n for n in names if n.split(".")[0] in TARGETS)
        for path, names in _imports(ROOT / "deploykit").items()
        if any(n.split(".")[0] in TARGETS for n in names)
    }
    assert offenders == {}


@pytest.mark.parametrize("target", TARGETS)
def test_targets_import_no_other_target(target: str) -> None:
    others = set(TARGETS) - {target}
    offenders = {
        str(path.relative_to(ROOT)): sorted(n for n in names if n.split(".")[0] in others)
        for path, names in _imports(ROOT / "converters" / target).items()
        if any(n.split(".")[0] in others for n in names)
    }
    assert offenders == {}


def test_quantize_imports_no_target() -> None:
    for path, names in _imports(ROOT / "quantize").items():
        assert not {n.split(".")[0] for n in names} & set(TARGETS), path


def _modules_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint('\\n'.join(m for m in sys.modules if '.' not in m))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "arguments", [["--help"], ["convert", "--help"], ["zoo", "train", "--help"], ["--version"]]
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import contextlib, io\nfrom deploykit.cli import main\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        f"    main({arguments!r})"
    )
    assert _modules_after(code) & set(HEAVY) == set()


def test_importing_deploykit_is_light() -> None:
    assert _modules_after("import deploykit") & set(HEAVY) == set()


def test_naming_the_targets_imports_none_of_them() -> None:
    code = "from deploykit.target import available_targets\nassert 'tflite' in available_targets()"
    assert _modules_after(code) & set(TARGETS) == set()


#: What starts a process, however it is imported.
_STARTERS = re.compile(
    r"subprocess\.(run|Popen|call|check_call|check_output|getoutput|getstatusoutput)\("
    r"|os\.(system|popen|fork|forkpty|exec\w+|spawn\w+|posix_spawn\w*|startfile)\("
    r"|from subprocess import|import multiprocessing|from multiprocessing|ProcessPoolExecutor"
    r"|import pty|from pty|create_subprocess_|torch\.multiprocessing"
)


def test_one_function_starts_every_process() -> None:
    offenders = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for folder in ("deploykit", "converters", "quantize")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if not path.name.endswith("_test.py") and path != ROOT / "deploykit" / "child_process.py"
        for line in path.read_text(encoding="utf-8").splitlines()
        if _STARTERS.search(line)
    ]
    assert offenders == [], "start it with deploykit.child_process, which isolates it"
