"""ARM64 runtimes on an x86-64 machine: an environment whose Python runs under qemu.

The runtimes are the aarch64 wheels that phones' CPUs would run, and qemu executes their
instructions one by one: values are those of the real kernels, times are not. Which instructions
there are is the CPU's: kernels are chosen by it.

    a53     Cortex-A53: NEON only; the little cores of most phones, and old ones
    a76     Cortex-A76: float16 arithmetic and dot products; phones since 2019
    i8mm    products of int8 matrices, without SVE; phones since 2022
    sve2    Neoverse N2: SVE2

On an ARM64 machine the same runners run natively, on the CPU that it has.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import replace

from deploykit.errors import UserError
from deploykit.runners.base import RunnerDefinition
from deploykit.runners.environments import Environment

#: Name of a CPU → what qemu's ``-cpu`` is given.
CPUS = {
    "a53": "cortex-a53",
    "a76": "cortex-a76",
    "i8mm": "max,sve=off,sme=off,pauth-impdef=on",
    "sve2": "neoverse-n2",
}
#: What ``--phone`` verifies on.
PHONE_CPUS = ("a53", "a76", "i8mm")
DEFAULT_CPU = "a76"
SUFFIX = "-arm64"
#: Golden inputs that an emulated runtime is given: it takes 20 to 100 times as long as a real one.
EMULATED_SAMPLES = 4

ARM64 = Environment(
    name="arm64",
    requirements=("ai-edge-litert", "ncnn", "onnxruntime", "numpy"),
    python="3.11",
    imports="numpy",
    maker="deploykit.runners.make_arm64:fill_folder",
    interpreter=f"bin/python-{DEFAULT_CPU}",
)


def is_native() -> bool:
    """Whether this machine is an ARM64 one."""
    return platform.machine().lower() in ("aarch64", "arm64")


def on_arm64(definition: RunnerDefinition) -> RunnerDefinition:
    """The same runner on an ARM64 CPU, emulated where this machine has another one."""
    described = replace(
        definition,
        name=f"{definition.name}{SUFFIX}",
        description=f"{definition.description}; on an ARM64 CPU, emulated on x86-64 Linux",
        on_request=True,
        probe="",
    )
    if is_native():
        return described
    return replace(described, requires="", environment=ARM64, samples=EMULATED_SAMPLES)


def on_cpu(definition: RunnerDefinition, cpu: str) -> RunnerDefinition:
    """An emulated runner on one of the CPUs; its name is then ``NAME@CPU``.

    Raises:
        UserError: no such CPU, or a runner that runs on this machine's own.
    """
    if cpu not in CPUS:
        raise UserError(f"no CPU is called {cpu!r}", expected=f"one of {', '.join(CPUS)}")
    if definition.environment != ARM64:
        raise UserError(
            f"the runner {definition.name!r} runs on this machine's own CPU",
            expected="a CPU of a runner that is emulated (NAME-arm64, on x86-64 Linux)",
        )
    environment = replace(ARM64, interpreter=f"bin/python-{cpu}")
    return replace(definition, name=f"{definition.name}@{cpu}", environment=environment)


def names_on_cpus(definitions: Iterable[RunnerDefinition], cpus: Iterable[str]) -> list[str]:
    """The ARM64 runners among these, on each CPU; on an ARM64 machine on its own."""
    arm = [d for d in definitions if d.name.endswith(SUFFIX)]
    if is_native():
        return [d.name for d in arm]
    return [on_cpu(d, cpu).name for cpu in cpus for d in arm]
