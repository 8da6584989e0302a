"""The CPU in words: architecture and the features by which runtimes choose their kernels."""

from __future__ import annotations

import platform
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")

#: In the order in which they are reported: x86 first, then ARM, each from old to new.
_FEATURES = (
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "amx_int8",
    "asimd",
    "asimddp",
    "i8mm",
    "fphp",
    "sve",
)


def describe_cpu() -> str:
    """This machine's CPU, e.g. ``x86_64 avx2 fma avx512f`` or ``aarch64 asimd asimddp``.

    Where the system has no /proc/cpuinfo (macOS, Windows), the architecture and what the platform
    itself calls the processor.
    """
    machine = platform.machine()
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        processor = platform.processor()
        return f"{machine} {processor}" if processor and processor != machine else machine
    return " ".join([machine, *features_of(text)])


def features_of(cpuinfo: str) -> list[str]:
    """The features that matter, from the text of /proc/cpuinfo, in a fixed order.

    A feature counts only if every core has it: a runtime that runs on all cores cannot use one
    that some lack (big.LITTLE).
    """
    cores = [
        set(line.partition(":")[2].split())
        for line in cpuinfo.splitlines()
        if line.partition(":")[0].strip() in ("flags", "Features")
    ]
    if not cores:
        return []
    common = set.intersection(*cores)
    return [name for name in _FEATURES if name in common]
