from __future__ import annotations

from pathlib import Path
from typing import Any

from deploykit.runners import cpu

X86 = """processor\t: 0
model name\t: made up
flags\t\t: fpu avx512_vnni sse2 fma avx512f avx2

processor\t: 1
flags\t\t: fpu sse2 avx2 fma avx512f avx512_vnni avx_vnni
"""

ARM = """processor\t: 0
BogoMIPS\t: 50.00
Features\t: fp asimd evtstrm i8mm asimddp fphp sve
"""


def test_features_are_told_in_a_fixed_order_and_only_if_every_core_has_them() -> None:
    assert cpu.features_of(X86) == ["avx2", "fma", "avx512f", "avx512_vnni"]
    assert cpu.features_of(ARM) == ["asimd", "asimddp", "i8mm", "fphp", "sve"]
    assert cpu.features_of("processor : 0\n") == []


def test_description_begins_with_the_architecture(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    (tmp_path / "cpuinfo").write_text(ARM)
    monkeypatch.setattr(cpu, "_CPUINFO", tmp_path / "cpuinfo")
    assert cpu.describe_cpu() == "aarch64 asimd asimddp i8mm fphp sve"


def test_without_cpuinfo_the_platform_is_asked(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    monkeypatch.setattr(cpu, "_CPUINFO", tmp_path / "absent")
    monkeypatch.setattr("platform.processor", lambda: "Apple M9")
    assert cpu.describe_cpu() == "arm64 Apple M9"
    monkeypatch.setattr("platform.processor", lambda: "")
    assert cpu.describe_cpu() == "arm64"
