"""Runners that compile a file for hardware that is not here, and run nothing.

What a compiler took of the file stands in the details of its `RunnerInfo`, for each piece of
hardware: ``NAME.ops`` and ``NAME.cpu_ops``, those of them that are left to the CPU.
"""

from __future__ import annotations

from deploykit.runners.base import RunnerInfo

OPS = "ops"
CPU_OPS = "cpu_ops"


def cpu_op_shares(info: RunnerInfo | None) -> dict[str, float]:
    """Hardware → share of operators left to the CPU, 0..1; empty for a runner that runs files."""
    if info is None:
        return {}
    suffix = f".{CPU_OPS}"
    names = [key.removesuffix(suffix) for key in info.details if key.endswith(suffix)]
    return {n: info.details[f"{n}{suffix}"] / info.details[f"{n}.{OPS}"] for n in names}
