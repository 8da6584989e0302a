"""ncnn in the runner's child process, on the CPU or by Vulkan.

Arithmetic:

    float32     every option that computes or stores in float16 or bfloat16 is off: the same
                numbers on every CPU but for the order of additions; what parity is verified in
    default     as ncnn's own options are, and as apps run it that set none: on ARM cores with
                float16 arithmetic it computes in float16
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from deploykit.child_process import run_child
from deploykit.errors import RunnerError
from deploykit.runners.base import Backend
from deploykit.tensors import Array
from deploykit_ncnn.read_files import (
    bin_beside,
    boundary_blobs,
    computed_blobs,
    read_param,
    read_storage,
)

_ARITHMETICS = ("float32", "default")
_HALF_OPTIONS = (
    "use_fp16_packed",
    "use_fp16_storage",
    "use_fp16_arithmetic",
    "use_bf16_packed",
    "use_bf16_storage",
)
_PROBE = "import ncnn; raise SystemExit(0 if ncnn.get_gpu_count() > 0 else 3)"
_NO_DEVICE = 3
_PROBE_TIMEOUT_S = 20.0


def why_no_vulkan() -> str:
    """Why no Vulkan device is here, in words; empty if one is.

    Asked in a separate process: loading a driver costs memory, and may crash.
    """
    advice = "install a driver; on Debian, mesa-vulkan-drivers brings one that runs on the CPU"
    try:
        done = run_child(["-c", _PROBE], timeout_s=_PROBE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return f"the Vulkan driver did not answer within {_PROBE_TIMEOUT_S:.0f} s"
    if done.returncode == 0:
        return ""
    if done.returncode == _NO_DEVICE:
        return f"ncnn finds no Vulkan device ({advice})"
    last = (done.stderr.strip().splitlines() or ["no words"])[-1]
    return f"asking ncnn for Vulkan devices failed: {last}"


class NcnnBackend(Backend):
    """One .param file, with the .bin file beside it.

    Args:
        path: The .param file.
        options: ``arithmetic``: one of the module's, ``float32`` by default; ``vulkan``: whether
            the GPU computes; ``packing`` and ``light_mode``: as ncnn's options, on by default;
            ``threads``: 1 by default.

    Raises:
        SourceError: a damaged .param or .bin file. ncnn itself reads past an unknown tag, and takes
            no notice of what is left over.
        RunnerError: an unknown option, no Vulkan device, or a file that ncnn refuses.
    """

    def __init__(self, path: str, options: Mapping[str, Any]) -> None:
        known = {"arithmetic", "vulkan", "packing", "light_mode", "threads"}
        if unknown := sorted(set(options) - known):
            raise RunnerError(f"options {unknown}", expected=f"some of {sorted(known)}")
        self._path = Path(path)
        self._arithmetic = str(options.get("arithmetic", "float32"))
        if self._arithmetic not in _ARITHMETICS:
            raise RunnerError(
                f"arithmetic {self._arithmetic!r}", expected=f"one of {', '.join(_ARITHMETICS)}"
            )
        self._vulkan = bool(options.get("vulkan", False))
        self._packing = bool(options.get("packing", True))
        self._light = bool(options.get("light_mode", True))
        self._threads = int(options.get("threads", 1))
        self._layers = read_param(self._path)
        read_storage(bin_beside(self._path), self._layers)
        self._inputs, self._outputs = boundary_blobs(self._layers)
        self._net = self._open()

    def _open(self) -> Any:
        import ncnn

        if self._vulkan and ncnn.get_gpu_count() < 1:
            raise RunnerError(
                "ncnn finds no Vulkan device",
                advice="install a driver; on Debian, mesa-vulkan-drivers brings one that runs on "
                "the CPU",
            )
        net = ncnn.Net()
        net.opt.num_threads = self._threads
        net.opt.lightmode = self._light
        net.opt.use_packing_layout = self._packing
        net.opt.use_vulkan_compute = self._vulkan
        if self._arithmetic == "float32":
            for name in _HALF_OPTIONS:
                if hasattr(net.opt, name):  # an old ncnn has no bfloat16
                    setattr(net.opt, name, False)
        weights = bin_beside(self._path)
        for what, file, load in (
            ("layers", self._path, net.load_param),
            ("weights", weights, net.load_model),
        ):
            if load(str(file)) != 0:
                raise RunnerError(
                    f"ncnn {version('ncnn')} refuses the {what} in {file.name}",
                    expected="a .param file and, beside it, the .bin file that belongs to it",
                    advice="what ncnn says of it is in the runner's last words",
                )
        return net

    def info(self) -> Mapping[str, Any]:
        """What `deploykit.runners.base.Backend.info` asks for; ``details`` are ncnn's options."""
        import ncnn

        option = self._net.opt
        details: dict[str, Any] = {
            "fp16_storage": bool(option.use_fp16_storage),
            "fp16_arithmetic": bool(option.use_fp16_arithmetic),
            "bf16_storage": bool(getattr(option, "use_bf16_storage", False)),
            "packing": bool(option.use_packing_layout),
            "light_mode": self._light,
        }
        if self._vulkan:
            details["device"] = ncnn.get_gpu_info(ncnn.get_default_gpu_index()).device_name()
        where = "Vulkan" if self._vulkan else "CPU"
        return {
            "runtime": "ncnn",
            "version": version("ncnn"),
            "kernels": f"{where}, {self._arithmetic} arithmetic",
            "threads": self._threads,
            "details": details,
        }

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one sample.

        Args:
            inputs: Input name → float32 (C, H, W), without a batch axis.

        Raises:
            RunnerError: another set of inputs, or a layer that ncnn cannot run.
        """
        return self._run(inputs, self._outputs, light=self._light)

    def run_all(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one sample and return every blob that a layer computes.

        Blobs of integers come as float32 that holds them.
        """
        return self._run(inputs, computed_blobs(self._layers, self._outputs), light=False)

    def _run(
        self, inputs: Mapping[str, Array], wanted: tuple[str, ...], *, light: bool
    ) -> dict[str, Array]:
        import ncnn

        if set(inputs) != set(self._inputs):
            raise RunnerError(
                f"inputs {sorted(inputs)}", expected=f"the inputs of the file: {self._inputs}"
            )
        extractor = self._net.create_extractor()
        extractor.set_light_mode(light)
        # A Mat made of an array shares its memory, and its rows are not aligned: a clone is sound.
        held = {
            name: ncnn.Mat(np.ascontiguousarray(array, np.float32)).clone()
            for name, array in inputs.items()
        }
        for name, mat in held.items():
            if extractor.input(name, mat) != 0:
                raise RunnerError(f"ncnn refuses the input '{name}'")
        found = {}
        for name in wanted:
            code, mat = extractor.extract(name)
            if code != 0:
                raise RunnerError(f"ncnn cannot compute '{name}' (code {code})")
            found[name] = np.array(mat)
        return found
