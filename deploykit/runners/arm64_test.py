"""Names, CPUs, the system's apt sources, and what is refused; nothing is downloaded."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from deploykit.errors import UserError
from deploykit.flow.runners import select_runners
from deploykit.runners import make_arm64
from deploykit.runners.arm64 import ARM64, CPUS, on_arm64, on_cpu
from deploykit.runners.base import RunnerDefinition
from deploykit.runners.make_arm64 import check_system, find_mirror

BASE = RunnerDefinition("b", "m:C", "numpy", "x", "t", "", limits=("fp32.snr_db=40",))


@pytest.fixture(autouse=True)
def on_x86(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(platform, "system", lambda: "Linux")


def test_an_emulated_runner_has_an_environment_fewer_samples_and_the_same_limits() -> None:
    emulated = on_arm64(BASE)
    assert (emulated.name, emulated.environment, emulated.samples) == ("b-arm64", ARM64, 4)
    assert (emulated.limits, emulated.on_request, emulated.requires) == (BASE.limits, True, "")


def test_on_an_arm64_machine_it_runs_natively(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    native = on_arm64(BASE)
    assert (native.environment, native.samples, native.requires) == (None, None, "numpy")
    assert [d.name for d in select_runners((BASE, native), (), ("a53", "a76"))] == ["b", "b-arm64"]
    with pytest.raises(UserError, match="own CPU"):
        on_cpu(native, "a53")


@pytest.mark.parametrize("cpu", CPUS)
def test_each_cpu_is_an_interpreter_of_one_environment(cpu: str) -> None:
    found = on_cpu(on_arm64(BASE), cpu)
    assert found.name == f"b-arm64@{cpu}"
    assert found.environment is not None
    assert (found.environment.name, found.environment.interpreter) == ("arm64", f"bin/python-{cpu}")


def test_an_unknown_cpu_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match="no CPU is called 'm4'") as caught:
        on_cpu(on_arm64(BASE), "m4")
    assert "a53, a76, i8mm, sve2" in caught.value.expected
    with pytest.raises(UserError, match="own CPU"):
        on_cpu(BASE, "a53")


ONE_LINE = """# deb http://c.example/debian bookworm main
deb [arch=amd64 signed-by=/k.gpg] http://a.example/debian bookworm-updates main
deb [arch=amd64 signed-by=/k.gpg] http://b.example/debian bookworm main contrib # here
"""
DEB822 = """Types: deb
# a remark
URIs: http://s.example/debian-security
Suites: bookworm-security
Components: main

Types: deb
URIs: http://d.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/k.gpg
"""


def test_the_mirror_is_the_systems_own() -> None:
    mirror = find_mirror({"sources.list": ONE_LINE}, "bookworm")
    assert (mirror.address, mirror.options) == ("http://b.example/debian", "signed-by=/k.gpg")
    mirror = find_mirror({"debian.sources": DEB822}, "bookworm")
    assert mirror.address == "http://d.example/debian"
    assert mirror.options == "signed-by=/usr/share/k.gpg"
    with pytest.raises(UserError, match="no trixie main"):
        find_mirror({"a.list": ONE_LINE, "b.sources": DEB822}, "trixie")


@pytest.mark.parametrize(
    ("system", "machine", "release", "words"),
    [
        ("Darwin", "x86_64", "", "this is Darwin x86_64"),
        ("Linux", "riscv64", "", "this is Linux riscv64"),
        ("Linux", "x86_64", 'PRETTY_NAME="Other 1"\n', "cannot be set up on Other 1"),
        ("Linux", "x86_64", "VERSION_CODENAME=noble\n", "cannot be set up on this system"),
    ],
)
def test_other_systems_are_refused(
    system: str,
    machine: str,
    release: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(platform, "system", lambda: system)
    (tmp_path / "os-release").write_text(release)
    monkeypatch.setattr(make_arm64, "_OS_RELEASE", tmp_path / "os-release")
    with pytest.raises(UserError, match=words) as caught:
        check_system()
    assert "Debian 12" in caught.value.expected


def test_without_apt_it_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "os-release").write_text("VERSION_CODENAME=bookworm\n")
    monkeypatch.setattr(make_arm64, "_OS_RELEASE", tmp_path / "os-release")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no apt-get and no dpkg"):
        check_system()
