"""Environments of their own, for runtimes that cannot be installed beside deploykit.

An old runtime may need an old numpy. Its environment is made by pip on request
(``deploykit doctor --setup NAME``), once for the user, in ``ENVIRONMENTS/NAME``:

    $DEPLOYKIT_ENVIRONMENTS                     where it is set, otherwise
    $XDG_DATA_HOME/deploykit/environments       or ~/.local/share/... (Linux and others)
    ~/Library/Application Support/deploykit/environments               (macOS)
    %LOCALAPPDATA%\\deploykit\\environments                              (Windows)

It is filled under another name and renamed when what it is for can be imported, and its record,
written last, says what was asked for: an environment that is half made, or was made for other
requirements, is never taken for a good one. deploykit itself is not installed there
(`deploykit.runners.foreign_child`).
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploykit.child_process import run_child
from deploykit.errors import BundleError, UserError
from deploykit.files import folder_written_atomically

FOLDER_VARIABLE = "DEPLOYKIT_ENVIRONMENTS"
RECORD = "deploykit-environment.json"
_SCHEMA = "deploykit.environment/1"
_PIP_TIMEOUT_S = 900.0
_QUOTED_LINES = 8
_PIP_OPTIONS = ("--disable-pip-version-check", "--no-input")
# Imports what the environment is for, then tells what is installed.
_LIST = """
import importlib, json, sys
from importlib.metadata import distributions
importlib.import_module(sys.argv[1])
print(json.dumps({d.metadata["Name"]: d.version for d in distributions()}, sort_keys=True))
"""


@dataclass(frozen=True)
class Environment:
    """What is installed together, apart from deploykit.

    Attributes:
        name: What ``--setup`` calls it, and its folder.
        requirements: As pip takes them; only wheels are installed, so that no code of a package
            runs in between.
        python: The minor version of Python that it needs, e.g. ``3.11``.
        imports: The module that must be importable in the end.
        maker: ``package.module:function`` that fills the folder in pip's place, given the
            environment, the folder, one for downloads, and what is called with progress.
        interpreter: Its interpreter inside of the folder; empty for that of a venv.
    """

    name: str
    requirements: tuple[str, ...]
    python: str
    imports: str
    maker: str = ""
    interpreter: str = ""


def environments_folder(
    variables: Mapping[str, str] = os.environ, platform: str = sys.platform
) -> Path:
    """Where the user's environments are; see the module's docstring."""
    if given := variables.get(FOLDER_VARIABLE):
        return Path(given).expanduser().absolute()
    if platform == "win32" and (local := variables.get("LOCALAPPDATA")):
        data = Path(local)
    elif platform == "darwin":
        data = Path.home() / "Library" / "Application Support"
    else:
        data = Path(variables.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return data / "deploykit" / "environments"


def python_of(environment: Environment) -> Path:
    """Its interpreter, whether it is there or not."""
    return _python_in(environments_folder() / environment.name, environment)


def why_not_made(environment: Environment) -> str:
    """Why an environment cannot be used, and the command that makes it; empty if it can."""
    folder = environments_folder() / environment.name
    command = f"deploykit doctor --setup {environment.name}"
    record = _read_record(folder)
    if record is None or not _python_in(folder, environment).exists():
        return f"its environment is not made: {command}"
    if record.get("requirements") != list(environment.requirements):
        return f"its environment was made for other requirements: {command}"
    return ""


def installed_in(environment: Environment) -> dict[str, str]:
    """Package → version, as they were installed; empty if the environment cannot be used."""
    if why_not_made(environment):
        return {}
    record = _read_record(environments_folder() / environment.name)
    return dict(record["packages"]) if record else {}


def make_environment(
    environment: Environment, progress: Callable[[str], None] = lambda _: None
) -> Path:
    """Make an environment by pip, in the place of an older one if there is any.

    Args:
        environment: What to install.
        progress: Called with one line a step.

    Returns:
        Its folder.

    Raises:
        UserError: no interpreter of its version is here, pip cannot install what it needs, or the
            folder cannot be written. What was there before is as it was.
    """
    folder = environments_folder() / environment.name
    downloads = environments_folder() / f".{environment.name}-downloads"
    interpreter = "" if environment.maker else find_interpreter(environment)
    if importlib.util.find_spec("pip") is None:
        raise UserError(
            f"{environment.name} is installed by pip, and this Python has none",
            advice=f"{sys.executable} -m ensurepip",
        )
    try:
        with folder_written_atomically(folder, _check_replaceable) as temporary:
            progress(f"making {folder} with Python {environment.python}")
            if environment.maker:
                module, _, function = environment.maker.partition(":")
                maker = getattr(importlib.import_module(module), function)
                maker(environment, temporary, downloads, progress)
            else:
                _fill_by_pip(environment, temporary, interpreter, progress)
            python = str(_python_in(temporary, environment))
            listed = _run(python, ["-c", _LIST, environment.imports], environment)
            record = {
                "schema": _SCHEMA,
                "name": environment.name,
                "requirements": list(environment.requirements),
                "packages": json.loads(listed),
            }
            (temporary / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
        shutil.rmtree(downloads, ignore_errors=True)
    except BundleError as error:
        raise UserError(
            error.found, advice=f"set {FOLDER_VARIABLE} to a folder that can be written"
        ) from error
    return folder


def _check_replaceable(folder: Path) -> None:
    """Refuse to replace a folder that is no environment."""
    known = (folder / RECORD).is_file() or (folder / "pyvenv.cfg").is_file()
    if not known and any(folder.iterdir()):
        raise BundleError(f"{folder} holds other files, and no environment of deploykit")


def _fill_by_pip(
    environment: Environment, folder: Path, interpreter: str, progress: Callable[[str], None]
) -> None:
    _run(interpreter, ["-m", "venv", "--without-pip", str(folder)], environment)
    progress(f"pip install {' '.join(environment.requirements)}")
    pip = ["-m", "pip", "--python", str(_python_in(folder, environment)), *_PIP_OPTIONS]
    pip += ["install", "--only-binary=:all:", *environment.requirements]
    _run(sys.executable, pip, environment)


def remove_environment(environment: Environment) -> bool:
    """Remove an environment, and what was downloaded for it.

    Returns:
        Whether there was one.

    Raises:
        UserError: it cannot be removed.
    """
    folder = environments_folder() / environment.name
    shutil.rmtree(environments_folder() / f".{environment.name}-downloads", ignore_errors=True)
    if not folder.exists():
        return False
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be removed: {error.strerror}") from error
    return True


def find_interpreter(environment: Environment) -> str:
    """An interpreter of the version that an environment needs.

    Raises:
        UserError: there is none.
    """
    if environment.python == f"{sys.version_info[0]}.{sys.version_info[1]}":
        return sys.executable
    found = shutil.which(f"python{environment.python}")
    if found is None:
        raise UserError(
            f"{environment.name} needs Python {environment.python}, and there is no "
            f"python{environment.python} on the path (this is {sys.version.split()[0]})",
            advice=f"install Python {environment.python}, then run this again",
        )
    return found


def _python_in(folder: Path, environment: Environment) -> Path:
    if environment.interpreter:
        return folder / environment.interpreter
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def _read_record(folder: Path) -> dict[str, Any] | None:
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    sound = isinstance(record, dict) and record.get("schema") == _SCHEMA
    return record if sound and isinstance(record.get("packages"), dict) else None


def _run(interpreter: str, arguments: Sequence[str], environment: Environment) -> str:
    try:
        done = run_child(arguments, interpreter=interpreter, timeout_s=_PIP_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"making the environment {environment.name} took longer than {_PIP_TIMEOUT_S:g} s",
            advice="look at the connection to the package index, then run this again",
        ) from error
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        quoted = "".join(f"\n    | {line}" for line in lines[-_QUOTED_LINES:])
        raise UserError(
            f"the environment {environment.name} cannot be made: "
            f"{Path(interpreter).name} ended with exit code {done.returncode}{quoted}",
            expected=f"{' and '.join(environment.requirements)} as wheels for Python "
            f"{environment.python} on this machine",
        )
    return done.stdout
