"""Arm's compiler vela in the runner's child process: what an Ethos-U NPU would take of a file.

Nothing is run: there is no NPU here. What is reported are the compiler's own figures, and its
estimates of an NPU with the memories that vela assumes where it is not told of others (its default
system configuration and memory mode of each generation).
"""

from __future__ import annotations

import csv
import re
import tempfile
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from deploykit.errors import RunnerError
from deploykit.runners.base import Backend
from deploykit.runners.compiled import CPU_OPS, OPS
from deploykit.tensors import Array
from deploykit_tflite.ethos_u import ACCELERATORS, USUAL
from deploykit_tflite.native_output import captured_output

_COUNT = re.compile(r"^(CPU|NPU) operators = (\d+)", re.MULTILINE)
_LEFT = re.compile(r"^Reason: (.+)", re.MULTILINE)
_QUOTED = 400  # characters of the compiler's words
#: Column of vela's summary → what it is called here; KiB as vela counts them.
_FIGURES = {
    "cycles_total": "cycles",
    "sram_memory_used": "sram_kib",
    "dram_memory_used": "dram_kib",
    "off_chip_flash_memory_used": "flash_kib",
}


class VelaBackend(Backend):
    """Compiles one .tflite file for one NPU or several.

    Args:
        path: The file.
        options: ``accelerators``: of `deploykit_tflite.ethos_u.ACCELERATORS`, by default one of
            each generation; ``save``: where the file compiled for the last of them is written.

    Raises:
        RunnerError: an unknown accelerator, or vela refuses the file, in its own words.
    """

    def __init__(self, path: str, options: Mapping[str, Any]) -> None:
        self._path = path
        self._details: dict[str, float] = {}
        for accelerator in options.get("accelerators", USUAL):
            if accelerator not in ACCELERATORS:
                expected = f"one of {', '.join(ACCELERATORS)}"
                raise RunnerError(f"accelerator {accelerator!r}", expected=expected)
            with tempfile.TemporaryDirectory() as folder:
                counts, reason = self._compile(accelerator, folder)
                figures: dict[str, float] = {
                    CPU_OPS: counts["CPU"],
                    OPS: counts["CPU"] + counts["NPU"],
                }
                figures |= _read_summary(Path(folder))
                self._details |= {f"{accelerator}.{n}": v for n, v in figures.items()}
                self._reason = reason
                if save := options.get("save"):
                    (compiled,) = Path(folder).glob("*.tflite")
                    Path(save).write_bytes(compiled.read_bytes())

    def _compile(self, accelerator: str, folder: str) -> tuple[dict[str, int], str]:
        main = import_module("ethosu.vela.vela").main
        arguments = [self._path, "--accelerator-config", accelerator, "--output-dir", folder]
        code: object
        with captured_output() as words:
            try:
                code = main(arguments)
            except SystemExit as left:
                code = left.code
            except Exception as error:  # whatever the compiler raises is its refusal
                code = f"{type(error).__name__}: {error}"
            text = words()
        counts = {which: int(number) for which, number in _COUNT.findall(text)}
        if code or set(counts) != {"CPU", "NPU"} or not sum(counts.values()):
            said = " ".join(line for line in text.split("\n") if not line.startswith("Warning"))
            why = f"{'' if code in (0, 1, None) else code} {said}".strip()
            raise RunnerError(
                f"vela {version('ethos-u-vela')} refuses {self._path} for {accelerator}: "
                f"{why[:_QUOTED]}",
                expected="an int8 file (--int8)",
            )
        return counts, next(iter(_LEFT.findall(text)), "")

    def info(self) -> Mapping[str, Any]:
        """What `deploykit.runners.base.Backend.info` asks for; ``details`` has the figures."""
        return {
            "runtime": "vela",
            "version": version("ethos-u-vela"),
            "kernels": "compiled",
            "threads": 1,
            "details": self._details | ({"left_to_cpu": self._reason} if self._reason else {}),
        }

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Nothing can be run.

        Raises:
            RunnerError: always.
        """
        raise RunnerError("vela compiles the file for an NPU, and does not run it")


def _read_summary(folder: Path) -> dict[str, float]:
    """vela's figures, but memories that are not used; none of a file that is left to the CPU."""
    summary = next(iter(folder.glob("*_summary_*.csv")), None)
    if summary is None:
        return {}
    with summary.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    if not rows:
        return {}
    found = {name: round(float(rows[-1][column]), 1) for column, name in _FIGURES.items()}
    return {name: int(v) if v == int(v) else v for name, v in found.items() if v}
