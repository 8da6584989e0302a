"""Makes the environment of `deploykit.runners.arm64`, without touching the system's packages.

apt gets folders of its own (lists, cache, state) and reads the system's mirror and key; of its
packages qemu's one static program and Python with the libraries that it loads are unpacked into
the environment, never installed. pip then puts aarch64 wheels beside them. What was downloaded is
kept until the environment is whole, so that a second try goes on where the first one ended.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from deploykit.child_process import run_child, run_program
from deploykit.errors import UserError
from deploykit.runners.arm64 import CPUS
from deploykit.runners.environments import Environment

_OS_RELEASE = Path("/etc/os-release")
_APT = Path("/etc/apt")
_TIMEOUT_S = 600.0
_QUOTED_LINES = 8
#: Release → (the suite that has a qemu which emulates what runtimes ask the CPU for, Python).
_RELEASES = {"bookworm": ("bookworm-backports", "3.11")}
_LIBRARIES = ("libc6", "libgcc-s1", "libstdc++6", "zlib1g", "libffi8", "libexpat1")
_PYTHON = ("libpython{}-minimal", "libpython{}-stdlib", "python{}-minimal")
#: A wheel's platform tag must match exactly.
_GLIBC_MINORS = range(17, 37)
_ROOT, _PACKAGES = "root", "root/usr/lib/python3/dist-packages"


@dataclass(frozen=True)
class Mirror:
    """Where apt gets the release's packages: as the system's own sources say."""

    address: str
    options: str


def fill_folder(
    environment: Environment, folder: Path, downloads: Path, progress: Callable[[str], None]
) -> None:
    """Fill an environment's folder.

    Args:
        environment: What is wanted; its requirements are installed as aarch64 wheels.
        folder: Empty; becomes the environment.
        downloads: Where downloads are kept between tries.
        progress: Called with one line a step.

    Raises:
        UserError: another system than Debian 12 on x86-64, a missing tool, or a download that
            failed.
    """
    codename = check_system()
    suite, python = _RELEASES[codename]
    mirror = find_mirror(_apt_sources(), codename)
    progress("downloading qemu")
    packages = downloads / "amd64"
    _download(packages, mirror, suite, "amd64", ["qemu-user"])
    unpack = f"dpkg --fsys-tarfile qemu-user_*.deb | tar -x -C {shlex.quote(str(folder))}"
    _run(packages, "sh", "-ec", f"{unpack} ./usr/bin/qemu-aarch64")
    progress("downloading Python for ARM64")
    packages = downloads / "arm64"
    names = [*_LIBRARIES, *(name.format(python) for name in _PYTHON)]
    _download(packages, mirror, codename, "arm64", names)
    root = folder / _ROOT
    root.mkdir()
    unpack = 'for package in *.deb; do dpkg -x "$package" "$1"; done'
    _run(packages, "sh", "-ec", unpack, "sh", str(root))
    progress(f"pip install {' '.join(environment.requirements)}")
    _install(environment, folder / _PACKAGES, python)
    (folder / "bin").mkdir()
    for name, cpu in CPUS.items():
        script = folder / "bin" / f"python-{name}"
        script.write_text(_launcher(cpu, python), encoding="utf-8")
        script.chmod(0o755)


def check_system() -> str:
    """The release's code name, if the environment can be made here.

    Raises:
        UserError: it cannot.
    """
    import platform

    found = f"{platform.system()} {platform.machine()}"
    release = _os_release()
    wanted = "Debian 12 on x86-64"
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise UserError(
            f"ARM64 is emulated on x86-64 Linux, and this is {found}",
            expected=f"{wanted}, or an ARM64 machine, where nothing is emulated",
        )
    codename = release.get("VERSION_CODENAME", "")
    if codename not in _RELEASES:
        raise UserError(
            f"ARM64 runners cannot be set up on {release.get('PRETTY_NAME', 'this system')}",
            expected=f"{wanted}: qemu and the ARM64 libraries come from its packages",
        )
    if missing := [tool for tool in ("apt-get", "dpkg", "tar") if shutil.which(tool) is None]:
        raise UserError(f"there is no {' and no '.join(missing)} on the path")
    return codename


def find_mirror(sources: Mapping[str, str], codename: str) -> Mirror:
    """The system's mirror of a release.

    Args:
        sources: File name → text, of one-line (``.list``) and deb822 (``.sources``) files.
        codename: Of the release.

    Raises:
        UserError: no source of it has the component ``main``.
    """
    for name, text in sources.items():
        read = _read_stanzas if name.endswith(".sources") else _read_lines
        for mirror, suites, components in read(text):
            if codename in suites and "main" in components:
                return mirror
    raise UserError(
        f"the system's apt sources have no {codename} main", expected="a mirror of this release"
    )


_Entries = list[tuple[Mirror, list[str], list[str]]]


def _read_lines(text: str) -> _Entries:
    """``deb [options] address suite components``."""
    found = []
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if not words or words[0] != "deb":
            continue
        options = ""
        if words[1:] and words[1].startswith("["):
            end = next((i for i, word in enumerate(words) if word.endswith("]")), 1)
            given = " ".join(words[1 : end + 1]).strip("[]").split()
            options = " ".join(o for o in given if not o.startswith("arch"))
            words = [words[0], *words[end + 1 :]]
        if len(words) > 3:
            found.append((Mirror(words[1], options), [words[2]], words[3:]))
    return found


def _read_stanzas(text: str) -> _Entries:
    """deb822: one field a line, a stanza a source."""
    found: _Entries = []
    plain = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in plain.split("\n\n"):
        fields = {
            key.strip().lower(): value.strip()
            for key, colon, value in (line.partition(":") for line in stanza.splitlines())
            if colon and not key.startswith((" ", "\t"))
        }
        if "deb" not in fields.get("types", "").split() or fields.get("enabled") == "no":
            continue
        # A key that stands in the file itself cannot be named on one line.
        key = fields.get("signed-by", "")
        options = f"signed-by={key}" if key.startswith("/") else ""
        for address in fields.get("uris", "").split():
            mirror = Mirror(address, options)
            suites, components = fields.get("suites", ""), fields.get("components", "")
            found.append((mirror, suites.split(), components.split()))
    return found


def _os_release() -> dict[str, str]:
    try:
        text = _OS_RELEASE.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.partition("=") for line in text.splitlines())
    return {name: value.strip("\"'") for name, _, value in pairs}


def _apt_sources() -> dict[str, str]:
    parts = _APT / "sources.list.d"
    files = [_APT / "sources.list", *sorted(parts.glob("*.list")), *sorted(parts.glob("*.sources"))]
    return {f.name: f.read_text(encoding="utf-8", errors="replace") for f in files if f.is_file()}


def _download(
    folder: Path, mirror: Mirror, suite: str, architecture: str, names: list[str]
) -> None:
    """Packages of one architecture into ``folder``, checked by apt against the mirror's sums."""
    state = folder / "apt"
    for part in ("lists/partial", "cache/archives/partial"):
        (state / part).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    options = f"[arch={architecture} {mirror.options}]".replace(" ]", "]")
    (state / "sources.list").write_text(f"deb {options} {mirror.address} {suite} main\n")
    settings = {
        "Dir::State": f"{state}/",
        "Dir::State::Lists": f"{state}/lists/",
        "Dir::State::status": f"{state}/status",
        "Dir::Cache": f"{state}/cache/",
        "Dir::Etc::SourceList": f"{state}/sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "APT::Architecture": architecture,
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
    }
    given = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    given += ["-o", f"APT::Architectures::={architecture}"]
    _run(folder, "apt-get", "-q", *given, "update")
    _run(folder, "apt-get", "-q", *given, "download", *names)


def _install(environment: Environment, folder: Path, python: str) -> None:
    platforms = [f"--platform=manylinux_2_{minor}_aarch64" for minor in _GLIBC_MINORS]
    abis = [f"--abi={abi}" for abi in (f"cp{python.replace('.', '')}", "abi3", "none")]
    options = ["--no-deps", "--no-compile", "--only-binary=:all:", "--disable-pip-version-check"]
    options += ["--no-input", "--quiet", f"--python-version={python}", "--implementation=cp"]
    command = ["-m", "pip", "install", *options, *platforms, *abis, "--target", str(folder)]
    _check(run_child([*command, *environment.requirements], timeout_s=_TIMEOUT_S), "pip")


def _launcher(cpu: str, python: str) -> str:
    return f"""#!/bin/sh
here=$(dirname -- "$0")/..
exec "$here/usr/bin/qemu-aarch64" -L "$here/{_ROOT}" -cpu {cpu} -U PYTHONPATH \
-E OMP_NUM_THREADS=1 "$here/{_ROOT}/usr/bin/python{python}" "$@"
"""


def _run(folder: Path, *command: str) -> None:
    try:
        done = run_program(command, folder=folder, timeout_s=_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{command[0]} took longer than {_TIMEOUT_S:g} s") from error
    _check(done, command[0])


def _check(done: subprocess.CompletedProcess[str], program: str) -> None:
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        quoted = "".join(f"\n    | {line}" for line in lines[-_QUOTED_LINES:])
        raise UserError(
            f"the environment arm64 cannot be made: {program} ended with exit code "
            f"{done.returncode}{quoted}",
            advice="look at the connection to the mirror and the package index, then run this "
            "again: what is downloaded is kept",
        )
