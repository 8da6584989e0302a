"""What is installed, and the command that installs what is not.

The packages of an extra are those that deploykit's own metadata name; the extra of a target has
the target's name, if it has one.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, entry_points, requires, version

from deploykit.version import __version__

_TARGETS = "deploykit.targets"
_REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)\s*(?:\[([^\]]*)\])?\s*\(?([^;)]*)\)?\s*(?:;(.*))?$")
_EXTRA = re.compile(r"""extra\s*==\s*['"]([^'"]+)['"]""")


@dataclass(frozen=True)
class Package:
    """A package that deploykit, or one extra of it, needs.

    Attributes:
        name: As pip knows it.
        wanted: Version specifier, e.g. ``>=1.20``; empty for any.
        extra: Which extra needs it; empty for deploykit itself.
        found: The installed version; empty if it is not installed.
    """

    name: str
    wanted: str
    extra: str
    found: str

    @property
    def problem(self) -> str:
        """What is wrong with it, in words; empty if nothing is."""
        if not self.found:
            return f"{self.name} is not installed"
        if not _satisfies(self.found, self.wanted):
            return f"{self.name} is {self.found}, {self.wanted} is needed"
        return ""

    @property
    def command(self) -> str:
        """What installs it."""
        if self.extra:
            return f"pip install 'deploykit[{self.extra}]'"
        return f"pip install '{self.name}{self.wanted}'"


def needed_packages() -> tuple[Package, ...]:
    """Every package that deploykit's metadata name, its own first, then by extra; never itself."""
    found = []
    for line in requires("deploykit") or ():
        match = _REQUIREMENT.match(line.strip())
        if match is None:
            raise ValueError(f"the requirement {line!r} of deploykit cannot be read")
        name, _, wanted, marker = match.groups()
        extra = _EXTRA.search(marker or "")
        if name != "deploykit":
            found.append(
                Package(name, wanted.strip(), extra[1] if extra else "", _version_of(name))
            )
    return tuple(sorted(found, key=lambda p: (p.extra, p.name)))


def problems_of(target: str) -> tuple[Package, ...]:
    """The packages of a target's extra that are missing or too old."""
    return tuple(p for p in needed_packages() if p.extra == target and p.problem)


def library_versions(targets: Iterable[str]) -> dict[str, str]:
    """What shapes an artefact or a verdict, by name: deploykit, Python and installed packages.

    Args:
        targets: Names of the targets that were written; the packages of others shape nothing. A
            target of another distribution brings that one.
    """
    written = list(targets)
    found = {"deploykit": __version__, "python": platform.python_version()}
    for package in needed_packages():
        if package.found and package.extra in {"", "torch", *written}:
            found[package.name] = package.found
    for entry in entry_points(group=_TARGETS):
        if entry.name in written and entry.dist is not None and entry.dist.name != "deploykit":
            found[entry.dist.name] = entry.dist.version
    return found


def why_not_installed(target: str) -> str:
    """Why a target cannot be used here, and the command; empty if it can."""
    problems = problems_of(target)
    if not problems:
        return ""
    return f"{', '.join(p.problem for p in problems)}: {problems[0].command}"


def _version_of(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _satisfies(found: str, wanted: str) -> bool:
    """Whether a version meets every ``>=`` and ``<`` of a specifier."""
    return all(_meets(found, clause.strip()) for clause in wanted.split(",") if clause.strip())


def _meets(found: str, clause: str) -> bool:
    match = re.match(r"^(>=|<=|==|!=|~=|<|>)\s*(\S+)$", clause)
    if match is None:
        raise ValueError(f"the version specifier {clause!r} cannot be read")
    operator, bound = match.groups()
    have, want = _numbers(found), _numbers(bound)
    width = max(len(have), len(want))
    have, want = have + (0,) * (width - len(have)), want + (0,) * (width - len(want))
    results = {
        ">=": have >= want,
        "~=": have >= want,
        "<=": have <= want,
        "==": have == want,
        "!=": have != want,
        "<": have < want,
        ">": have > want,
    }
    return results[operator]


def _numbers(text: str) -> tuple[int, ...]:
    release = re.match(r"[0-9]+(?:\.[0-9]+)*", text)
    return tuple(int(part) for part in release[0].split(".")) if release else ()


def commands_for(packages: Iterable[Package]) -> tuple[str, ...]:
    """The commands that install what is missing, each once."""
    return tuple(dict.fromkeys(p.command for p in packages if p.problem))
