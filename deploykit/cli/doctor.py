"""``deploykit doctor``."""

from __future__ import annotations

import argparse
import json
import platform
from typing import Any

from deploykit.errors import EXIT_OK, EXIT_USER, UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--need",
        default="",
        metavar="NAMES",
        help="targets or extras, comma-separated, that must be usable: exit code 2 if not",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """Say what is missing, and the command that installs it.

    Raises:
        UserError: ``--need`` names something that does not exist.
    """
    found = examine_installation()
    needed = [name.strip() for name in args.need.split(",") if name.strip()]
    known = {p["extra"] for p in found["packages"] if p["extra"]} | set(found["targets"])
    unknown = [name for name in needed if name not in known]
    if unknown:
        raise UserError(
            f"nothing is called {', '.join(unknown)}", expected=f"of {', '.join(sorted(known))}"
        )
    problems = [
        p for p in found["packages"] if p["problem"] and (not p["extra"] or p["extra"] in needed)
    ]
    found["needed"], found["usable"] = needed, not problems
    print(json.dumps(found, indent=1) if args.json else _in_words(found))
    return EXIT_USER if problems else EXIT_OK


def examine_installation() -> dict[str, Any]:
    """Packages, targets and runners of this machine, as plain data."""
    import deploykit
    from deploykit.installation import commands_for, needed_packages
    from deploykit.runners.registry import runner_definitions, why_unavailable
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
        "commands": list(commands_for(packages)),
    }


def _in_words(found: dict[str, Any]) -> str:
    lines = [f"deploykit {found['deploykit']}, Python {found['python']}, {found['machine']}"]
    # A package may serve several extras; it is listed once, with all of them.
    states: dict[tuple[str, str], list[str]] = {}
    for package in found["packages"]:
        mark = "MISSING" if package["problem"] else "ok"
        state = package["problem"] or f"{package['name']} {package['found']}"
        states.setdefault((mark, state), []).append(package["extra"])
    for (mark, state), extras in states.items():
        names = ", ".join(e for e in extras if e)
        lines.append(f"  {mark:8s}{state:36s}{f'[{names}]' if names else ''}".rstrip())
    for name, reason in found["runners"].items():
        if reason:
            lines.append(f"  {'not here':8s} runner {name}: {reason}")
    if found["commands"]:
        lines += ["to install what is missing:", *(f"  {c}" for c in found["commands"])]
    else:
        lines.append("no package is missing")
    return "\n".join(lines)
