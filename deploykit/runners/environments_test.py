from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from deploykit.cli import main
from deploykit.errors import UserError
from deploykit.runners.base import RunnerDefinition, RunnerSpec
from deploykit.runners.environments import (
    FOLDER_VARIABLE,
    RECORD,
    Environment,
    environments_folder,
    find_interpreter,
    installed_in,
    make_environment,
    python_of,
    why_not_made,
)
from deploykit.runners.foreign_child import PackageFinder
from deploykit.runners.process import open_runner
from deploykit.runners.registry import available_runners, environments, why_unavailable
from deploykit_testing import fake_runners

THIS_PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of one module, as pip takes it without any index."""
    path = tmp_path_factory.mktemp("wheel") / "oldruntime-1.2-py3-none-any.whl"
    info = "oldruntime-1.2.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("oldruntime.py", "ANSWER = 42\n")
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: oldruntime\nVersion: 1.2\n")
        tag = "Root-Is-Purelib: true\nTag: py3-none-any\n"
        file.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: test\n{tag}")
        file.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "environments"))
    return tmp_path / "environments"


def environment(wheel: Path, **changes: object) -> Environment:
    plain = Environment("old", (str(wheel),), THIS_PYTHON, "oldruntime")
    return replace(plain, **changes)  # type: ignore[arg-type]


def definition(own: Environment) -> RunnerDefinition:
    return RunnerDefinition("old", "m:C", "", "", "t", "", environment=own)


def test_where_environments_are() -> None:
    given = environments_folder({FOLDER_VARIABLE: "/some/where", "XDG_DATA_HOME": "/x"}, "linux")
    assert given == Path("/some/where")
    named = environments_folder({"XDG_DATA_HOME": "/x"}, "linux")
    assert named == Path("/x/deploykit/environments")
    home = environments_folder({}, "linux").relative_to(Path.home())
    assert home == Path(".local/share/deploykit/environments")
    mac = environments_folder({}, "darwin").relative_to(Path.home())
    assert mac == Path("Library/Application Support/deploykit/environments")
    windows = environments_folder({"LOCALAPPDATA": "/local"}, "win32")
    assert windows == Path("/local/deploykit/environments")


def test_one_is_made_used_and_made_anew(folder: Path, wheel: Path) -> None:
    own = environment(wheel)
    assert "deploykit doctor --setup old" in why_not_made(own)
    assert not available_runners([definition(own)])
    steps: list[str] = []
    assert make_environment(own, steps.append) == folder / "old"
    assert why_not_made(own) == why_unavailable(definition(own)) == ""
    assert available_runners([definition(own)])
    assert installed_in(own) == {"oldruntime": "1.2"}
    assert python_of(own).is_relative_to(folder / "old")
    assert len(steps) == 2
    # The same name for other requirements is another environment.
    newer = environment(wheel, requirements=(str(wheel), "numpy<2"))
    assert "made for other requirements" in why_not_made(newer)
    # One that fails leaves the good one, and nothing beside it.
    with pytest.raises(UserError, match=r"cannot be made(.|\n)*No module named 'nothing'"):
        make_environment(environment(wheel, imports="nothing"))
    assert why_not_made(own) == ""
    assert [p.name for p in folder.iterdir()] == ["old"]


def test_what_is_half_made_or_damaged_is_not_taken(folder: Path, wheel: Path) -> None:
    own = environment(wheel)
    python = python_of(own)
    python.parent.mkdir(parents=True)
    python.touch()
    assert "is not made" in why_not_made(own)  # no record: pip was interrupted
    record = {"schema": "deploykit.environment/1", "requirements": list(own.requirements)}
    (folder / "old" / RECORD).write_text("{ cut of", encoding="utf-8")
    assert "is not made" in why_not_made(own)
    (folder / "old" / RECORD).write_text(json.dumps(record), encoding="utf-8")
    assert "is not made" in why_not_made(own)
    (folder / "old" / RECORD).write_text(json.dumps(record | {"packages": {}}), encoding="utf-8")
    assert why_not_made(own) == ""
    python.unlink()
    assert "is not made" in why_not_made(own)
    assert installed_in(own) == {}


def test_what_pip_cannot_install_is_told_in_its_words(folder: Path, tmp_path: Path) -> None:
    own = Environment("old", (str(tmp_path / "none-1-py3-none-any.whl"),), THIS_PYTHON, "x")
    with pytest.raises(UserError, match=r"cannot be made(.|\n)*none-1-py3-none-any.whl"):
        make_environment(own)
    assert list(folder.iterdir()) == []


def test_a_python_that_is_not_here_is_told(wheel: Path) -> None:
    with pytest.raises(UserError, match=r"no python2.3 on the path"):
        find_interpreter(environment(wheel, python="2.3"))
    assert find_interpreter(environment(wheel)) == sys.executable


def test_a_folder_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheel: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(UserError, match=FOLDER_VARIABLE):
        make_environment(environment(wheel))


def test_a_runner_whose_environment_is_not_made_says_so(folder: Path, wheel: Path) -> None:
    with pytest.raises(UserError, match=r"not made(.|\n)*deploykit doctor --setup old"):
        open_runner(RunnerSpec("old", "file"), definition(environment(wheel)))


def test_a_child_in_another_interpreter_has_deploykit_and_not_our_packages(folder: Path) -> None:
    import numpy as np

    own = Environment("old", (), THIS_PYTHON, "numpy")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "old"], check=True)
    record = {"schema": "deploykit.environment/1", "requirements": [], "packages": {}}
    (folder / "old" / RECORD).write_text(json.dumps(record), encoding="utf-8")
    packages = folder / "old" / "lib" / f"python{THIS_PYTHON}" / "site-packages"
    ours = Path(np.__file__).parent.parent
    for name in ("numpy", "numpy.libs"):  # what an environment has of its own
        if (ours / name).exists():
            (packages / name).symlink_to(ours / name)
    fake = replace(fake_runners.definition("Interpreter"), environment=own)
    with open_runner(RunnerSpec("fake", "file"), fake) as runner:
        assert runner.info.details["prefix"] == str((folder / "old").resolve())
        assert runner.info.details["foreign"] == ""
        outputs = runner.run({"x": np.float32([1, 2])})
    assert outputs["x"].tolist() == [1, 2]


def test_the_finder_finds_what_it_was_told_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "shown").mkdir()
    (tmp_path / "shown" / "__init__.py").write_text("VALUE = 3\n")
    finder = PackageFinder({"shown": str(tmp_path / "shown")})
    spec = finder.find_spec("shown", None)
    assert spec is not None
    assert spec.submodule_search_locations == [str(tmp_path / "shown")]
    assert finder.find_spec("numpy", None) is None
    assert finder.find_spec("shown.inner", None) is None


def test_setting_up_what_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "tflite-runtime" in environments()
    assert main(["doctor", "--setup", "nothing"]) == 2
    assert "no environment is called nothing" in capsys.readouterr().err
