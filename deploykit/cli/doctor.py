"""``deploykit doctor``."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from typing import TYPE_CHECKING, Any

from deploykit.errors import EXIT_OK, EXIT_USER, UserError

if TYPE_CHECKING:
    from deploykit.runners.environments import Environment

#: What each extra adds, for who has the core alone; those of developers are named with --need.
ABILITIES = {
    "torch": "reads PyTorch's files: checkpoints, safetensors, .pt2, TorchScript",
    "zoo": "builds timm's and torchvision's architectures, trains the examples",
    "tensorflow": "reads .keras files and SavedModels",
    "tflite": "writes .tflite files and verifies them on LiteRT",
    "coreml": "writes Core ML packages",
    "ncnn": "writes ncnn files and verifies them",
    "notebook": "gives results as pandas DataFrames",
    "all": "every target, with PyTorch and the architectures",
}
_OF_DEVELOPERS = frozenset({"dev", "test"})
_CORE = "reads .onnx files; writes .onnx for ONNX Runtime; verify, run, inspect"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--need",
        default="",
        metavar="NAMES",
        help="targets, extras or datasets, comma-separated, that must be there: exit code 2 if not",
    )
    parser.add_argument(
        "--setup",
        action="append",
        default=[],
        metavar="NAME",
        help="first make this environment, for runtimes that need one of their own (repeat)",
    )
    parser.add_argument(
        "--remove",
        action="append",
        default=[],
        metavar="NAME",
        help="first remove this environment (repeat)",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """Say what is missing, and the command that installs it.

    Raises:
        UserError: ``--need``, ``--setup`` or ``--remove`` names something that does not exist, or
            an environment cannot be made.
    """
    _change_environments(args.setup, args.remove)
    found = examine_installation()
    needed = [name.strip() for name in args.need.split(",") if name.strip()]
    known = {p["extra"] for p in found["packages"] if p["extra"]} | set(found["targets"])
    known |= {d["name"] for d in found["datasets"]}
    unknown = [name for name in needed if name not in known]
    if unknown:
        raise UserError(
            f"nothing is called {', '.join(unknown)}", expected=f"of {', '.join(sorted(known))}"
        )
    problems = [
        p for p in found["packages"] if p["problem"] and (not p["extra"] or p["extra"] in needed)
    ]
    problems += [d for d in found["datasets"] if d["missing"] and d["name"] in needed]
    found["needed"], found["usable"] = needed, not problems
    print(json.dumps(found, indent=1) if args.json else _format_findings(found))
    return EXIT_USER if problems else EXIT_OK


def _change_environments(wanted: list[str], unwanted: list[str]) -> None:
    from deploykit.runners.environments import make_environment, remove_environment
    from deploykit.runners.registry import environments

    known = environments()
    unknown = [name for name in (*wanted, *unwanted) if name not in known]
    if unknown:
        raise UserError(
            f"no environment is called {', '.join(unknown)}", expected=f"of {', '.join(known)}"
        )
    for name in unwanted:
        done = "removed" if remove_environment(known[name]) else "there was no environment"
        print(f"  {done} {name}", file=sys.stderr)
    for name in wanted:
        start = time.monotonic()
        folder = make_environment(known[name], lambda line: print(f"  {line}", file=sys.stderr))
        size = sum(f.lstat().st_size for f in folder.rglob("*") if not f.is_dir())
        seconds = time.monotonic() - start
        print(f"  made {folder}: {seconds:.0f} s, {size / 1e6:.0f} MB", file=sys.stderr)


def examine_installation() -> dict[str, Any]:
    """Packages, targets, runners and datasets of this machine, as plain data."""
    import deploykit
    from deploykit.installation import commands_for, needed_packages
    from deploykit.runners.registry import environments, runner_definitions, why_unavailable
    from deploykit.target import available_targets

    packages = needed_packages()
    return {
        "schema": "deploykit.doctor/1",
        "deploykit": deploykit.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "targets": list(available_targets()),
        "packages": [
            {
                "name": p.name,
                "extra": p.extra,
                "wanted": p.wanted,
                "found": p.found,
                "problem": p.problem,
            }
            for p in packages
        ],
        "runners": {name: why_unavailable(r) for name, r in runner_definitions().items()},
        "environments": [_examine_environment(e) for e in environments().values()],
        "datasets": [_examine_fashion_mnist()],
        "commands": list(commands_for(packages)),
    }


def _examine_environment(environment: Environment) -> dict[str, Any]:
    """Where an environment of a runtime's own is, and what is in it."""
    from deploykit.runners.environments import environments_folder, installed_in, why_not_made

    return {
        "name": environment.name,
        "folder": str(environments_folder() / environment.name),
        "requirements": list(environment.requirements),
        "problem": why_not_made(environment),
        "packages": installed_in(environment),
    }


def _examine_fashion_mnist() -> dict[str, Any]:
    """Where the zoo's dataset is looked for, what of it is missing, and what installs it."""
    from deploykit.accuracy import labelled_images as datasets

    folder = datasets.FASHION_MNIST_FOLDER
    missing = datasets.missing_idx_files(folder)
    return {
        "name": "fashion-mnist",
        "folder": str(folder),
        "missing": list(missing),
        "needed_for": "deploykit zoo train, sample",
        "command": datasets.INSTALL_FASHION_MNIST if missing else "",
    }


def _format_findings(found: dict[str, Any]) -> str:
    lines = [f"deploykit {found['deploykit']}, Python {found['python']}, {found['machine']}"]
    # A package may serve several extras; it is listed once, with all of them.
    states: dict[tuple[str, str], list[str]] = {}
    usual = {p["name"] for p in found["packages"] if p["extra"] not in _OF_DEVELOPERS}
    for package in found["packages"]:
        for_developers = package["name"] not in usual or package["extra"] in _OF_DEVELOPERS
        if for_developers and package["extra"] not in found["needed"]:
            continue
        mark = "MISSING" if package["problem"] else "ok"
        state = package["problem"] or f"{package['name']} {package['found']}"
        states.setdefault((mark, state), []).append(package["extra"])
    for (mark, state), extras in states.items():
        names = ", ".join(e for e in extras if e)
        lines.append(f"  {mark:8s}{state:36s}{f'[{names}]' if names else ''}".rstrip())
    for name, reason in found["runners"].items():
        if reason:
            lines.append(f"  {'not here':8s} runner {name}: {reason}")
    for environment in found["environments"]:
        if not environment["problem"]:  # else its runners say so
            packages = ", ".join(f"{n} {v}" for n, v in environment["packages"].items())
            lines.append(f"  {'ok':8s}environment {environment['folder']}: {packages}")
    for dataset in found["datasets"]:
        mark = "MISSING" if dataset["missing"] else "ok"
        lacks = f" lacks {', '.join(dataset['missing'])}" if dataset["missing"] else ""
        where = f"dataset {dataset['name']}: {dataset['folder']}{lacks}"
        lines.append(f"  {mark:8s}{where} ({dataset['needed_for']})")
    lines += _format_abilities(found)
    commands = [*found["commands"], *(d["command"] for d in found["datasets"] if d["command"])]
    if commands:
        lines += ["to install what is missing:", *(f"  {c}" for c in commands)]
    else:
        lines.append("nothing is missing")
    return "\n".join(lines)


def _format_abilities(found: dict[str, Any]) -> list[str]:
    """What can be done now, and what each extra adds that is not here."""
    lacking = {p["extra"] for p in found["packages"] if p["problem"]}
    known = {p["extra"] for p in found["packages"]}
    now = [_CORE, *(text for name, text in ABILITIES.items() if name in known - lacking - {"all"})]
    lines = ["what can be done now:", *(f"  {text}" for text in now)]
    adds = [f"  [{name}]  {text}" for name, text in ABILITIES.items() if name in lacking]
    return lines + (["what an extra adds:", *adds] if adds else [])
