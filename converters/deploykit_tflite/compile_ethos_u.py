"""A file compiled for an Ethos-U NPU, by vela in its environment."""

from __future__ import annotations

from pathlib import Path

from deploykit.runners.base import RunnerSpec
from deploykit.runners.process import open_runner
from deploykit.temporary import scratch_folder
from deploykit_tflite.ethos_u import RUNNER

_COMPILED = "compiled.tflite"


def compile_for(data: bytes, accelerator: str, timeout_s: float = 120.0) -> bytes:
    """A .tflite file, compiled by vela in its environment.

    Args:
        data: The int8 file.
        accelerator: One of `deploykit_tflite.ethos_u.ACCELERATORS`.
        timeout_s: Seconds that it may take.

    Raises:
        UserError: vela's environment is not made.
        RunnerError: vela refuses the file, crashes, or takes too long.
    """
    with scratch_folder() as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(data)
        target = Path(folder) / _COMPILED
        options = {"accelerators": [accelerator], "save": str(target)}
        with open_runner(RunnerSpec(RUNNER, str(path), options, timeout_s)):
            return target.read_bytes()
