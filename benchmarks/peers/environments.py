"""The peers' environments: a Python of the wanted version, a venv, and pip."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

#: Environment → (Python version, packages).
ENVIRONMENTS = {
    "litert-torch": (
        "3.11",
        ("litert-torch==0.10.0", "litert-quantizer==0.11.0", "torchvision", "timm"),
    ),
    "onnx2tf": ("3.12", ("onnx2tf==2.6.9",)),
    # A program by itself; torch is for the Python module beside it, which is not used.
    "pnnx": ("3.11", ("--no-deps", "pnnx==20261020")),
}

#: Written when pip is done: an environment without it is made anew.
_DONE = "complete.txt"


def find_python(version: str) -> Path | None:
    """An interpreter of a version, e.g. ``3.12``: on PATH, of pyenv, or of uv; None without one.

    Each candidate is run: pyenv puts names on PATH for versions that are not active, and these
    only fail.
    """
    name = f"python{version}"
    found = [shutil.which(name), _answer(["uv", "python", "find", version])]
    root = _answer(["pyenv", "root"])
    if root:
        versions = sorted((Path(root) / "versions").glob(f"{version}.*"))
        found += [str(folder / "bin" / name) for folder in reversed(versions)]
    for candidate in found:
        said = _answer([candidate, "--version"]) if candidate else ""
        if candidate and said.startswith(f"Python {version}."):
            return Path(candidate)
    return None


def make_environment(name: str, folder: Path) -> Path | None:
    """The interpreter of a peer's environment, made by pip if it is not there.

    Returns:
        None where no Python of its version is installed, which is reported.

    Raises:
        SystemExit: pip fails.
    """
    home = folder / "environments" / name
    version, packages = ENVIRONMENTS[name]
    wanted = "\n".join(packages) + "\n"
    done = home / _DONE
    if done.exists() and done.read_text() == wanted:
        return home / "bin" / "python"
    base = find_python(version)
    if base is None:
        print(f"{name}: left out, it needs Python {version}, which is not installed", flush=True)
        return None
    print(f"{name}: making its environment with {base}", flush=True)
    subprocess.run([str(base), "-m", "venv", "--clear", str(home)], check=True)
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", *packages]
    if subprocess.run(pip, check=False).returncode:
        raise SystemExit(f"pip could not install {', '.join(packages)}")
    done.write_text(wanted)
    return home / "bin" / "python"


def _answer(command: list[str]) -> str:
    """What a program prints; empty where it is missing or fails."""
    if shutil.which(command[0]) is None:
        return ""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
