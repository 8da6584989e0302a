"""The documents say what is true: Python blocks run, generated pages are up to date."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from deploykit.cli import main
from deploykit.cli.targets import describe_targets

ROOT = Path(__file__).resolve().parent.parent


def _blocks(name: str, language: str) -> list[str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_python_blocks_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    blocks = _blocks(name, "python")
    assert blocks
    # A name that importing machinery knows: dataclasses look their module up.
    namespace: dict[str, object] = {"__name__": "builtins"}
    for block in blocks:
        exec(compile(block, name, "exec", dont_inherit=True), namespace)


def test_readme_names_only_options_that_exist() -> None:
    for block in _blocks("README.md", "console"):
        for line in block.splitlines():
            if line.startswith("$ deploykit "):
                words = line.split("#")[0].split()[2:]
                options = [w for w in words if w.startswith("--")]
                from deploykit.cli import build_parser

                command = build_parser(words[0])
                known = command._subparsers._group_actions[0].choices[words[0]]  # type: ignore[union-attr,index]
                missing = set(options) - set(known._option_string_actions)
                assert not missing, line


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_ops_page_is_up_to_date() -> None:
    module = _script("make_ops")
    page = module.ops_page()
    assert "**missing**" not in page, "an op of the canonical set is neither lowered nor refused"
    assert module.FILE.read_text(encoding="utf-8") == page, "run python docs/make_ops.py"


def test_targets_page_is_up_to_date(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = _script("make_targets")
    monkeypatch.setattr(sys, "argv", ["make_targets.py", "--check"])
    assert module.main() == 0, "run python docs/make_targets.py"
    stale = tmp_path / "targets.md"
    stale.write_text(module.targets_page().replace("`litert`", "`leetert`", 1))
    monkeypatch.setattr(module, "FILE", stale)
    before = stale.read_bytes()
    assert module.main() == 1
    assert "python docs/make_targets.py" in capsys.readouterr().out
    assert stale.read_bytes() == before


def test_targets_page_names_all_that_targets_declare() -> None:
    page = _script("make_targets").targets_page()
    for target in describe_targets():
        assert f"| {target['name']} |" in page
        for what in (*target["options"], *target["runners"]):
            assert f"| `{what['name']}` |" in page


def test_every_relative_link_leads_somewhere() -> None:
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / link).exists(), f"{document.name}: {link}"


def test_exit_codes_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    for code in ("0", "1", "2", "3", "130"):
        assert re.search(rf"^  {code} ", text, re.MULTILINE)
