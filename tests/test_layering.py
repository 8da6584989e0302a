"""Who may import whom, and what may be imported when."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TARGETS = sorted(p.name for p in (ROOT / "converters").iterdir() if (p / "__init__.py").exists())
HEAVY = ("torch", "timm", "torchvision", "onnxruntime", "onnxsim", "coremltools", "ncnn",
         "ai_edge_litert", "onnx", "onnx_ir", "numpy", "PIL")  # fmt: skip


SOURCE_ROOTS = ("converters", "quantize", "zoo")
CONTRACTS = "the contracts"


def _module_files() -> dict[str, Path]:
    """Dotted name → file, of every module that is shipped."""
    found = {}
    for root, packages in ((ROOT, ["deploykit"]), *((ROOT / r, ["*"]) for r in SOURCE_ROOTS)):
        for package in packages:
            for path in sorted(root.glob(f"{package}/**/*.py")):
                if not path.name.endswith("_test.py"):
                    name = ".".join(path.relative_to(root).with_suffix("").parts)
                    found[name.removesuffix(".__init__")] = path
    return found


MODULES = _module_files()


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


@cache
def _imports(path: Path, *, types: bool) -> set[str]:
    """The modules of ours that a file imports, wherever in it; those for types alone if asked."""
    names: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if _is_for_types(node) and not types:
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= (whole & set(MODULES)) or {node.module}
    return names & set(MODULES)


def _room(module: str) -> str:
    first, _, rest = module.partition(".")
    if first != "deploykit":
        return first
    folder = rest.partition(".")[0]
    return folder if (ROOT / "deploykit" / folder).is_dir() and folder else CONTRACTS


def _stated_edges() -> dict[str, set[str]]:
    """Room → rooms that it may import, as ARCHITECTURE.md has it."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    table = text.partition("| room | may import |\n|---|---|\n")[2].partition("\n\n")[0]
    edges = {}
    for line in table.splitlines():
        rooms, may = line.strip("|").split("|")
        names = [CONTRACTS] if CONTRACTS in rooms else re.findall(r"`(\w+)`", rooms)
        edges.update({name: set(re.findall(r"`(\w+)`", may)) for name in names})
    return edges


def test_there_are_targets() -> None:
    assert "deploykit_tflite" in TARGETS


def test_every_import_between_rooms_is_one_that_the_architecture_states() -> None:
    allowed = _stated_edges()
    assert set(allowed) == {_room(name) for name in MODULES}
    face = {"deploykit", "deploykit.__main__"}  # the public names; `python -m deploykit`
    offenders = {
        f"{name} -> {other}"
        for name, path in MODULES.items()
        for other in _imports(path, types=False) - face
        if name not in face and _room(other) not in {_room(name), CONTRACTS, *allowed[_room(name)]}
    }
    assert offenders == set(), "turn the import round, or state the edge in ARCHITECTURE.md"


def test_every_edge_that_the_architecture_states_is_there() -> None:
    found: dict[str, set[str]] = {}
    for name, path in MODULES.items():
        found.setdefault(_room(name), set()).update(map(_room, _imports(path, types=False)))
    targets = set(TARGETS)
    for room, stated in _stated_edges().items():
        of_any = set().union(*(found[t] for t in targets)) if room in targets else found[room]
        assert stated <= of_any, f"{room} no longer imports {stated - of_any}"


def test_no_two_files_import_each_other_in_a_circle() -> None:
    edges = {name: _imports(path, types=True) - {name} for name, path in MODULES.items()}
    while leaves := {name for name, others in edges.items() if not others & set(edges)}:
        for name in leaves:
            del edges[name]
    circles = {name: sorted(others & set(edges)) for name, others in edges.items()}
    assert circles == {}, "these import each other, or what does"


def test_files_are_short() -> None:
    every = [*MODULES.values(), *(ROOT / "tests").glob("*.py"), *ROOT.glob("*_tests/*.py")]
    lines = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in every}
    assert {str(p.relative_to(ROOT)): n for p, n in lines.items() if n > 400} == {}


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
