"""Apple's Core ML in the runner's child process: coremltools' ``MLModel.predict``, on macOS only.

This code path is tested with a stand-in for ``MLModel``; it has not run on a Mac.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from deploykit.errors import RunnerError
from deploykit.preprocess import Preprocess
from deploykit.runners.base import Backend
from deploykit.tensors import Array
from deploykit_coreml.load_coremltools import load_coremltools
from deploykit_coreml.read_package import package_folder, read_package
from deploykit_coreml.reference_backend import image_inputs, pixels_of

_SYSTEM = "Darwin"


def why_unavailable() -> str:
    """Why Core ML cannot run here; empty on a Mac."""
    if platform.system() == _SYSTEM:
        return ""
    return f"Core ML runs on macOS, and this is {platform.system()}"


class CoremlBackend(Backend):
    """One .mlpackage in Apple's runtime.

    Args:
        path: The folder, or its Manifest.json.
        options: ``compute_units``: ``ALL`` (default), ``CPU_ONLY``, ``CPU_AND_GPU`` or
            ``CPU_AND_NE``; ``threads`` is Apple's to choose.

    Raises:
        RunnerError: not on a Mac, an unknown unit, or the runtime's own words.
    """

    def __init__(self, path: str, options: Mapping[str, Any]) -> None:
        reason = why_unavailable()
        if reason:
            raise RunnerError(
                reason,
                advice="take the runner coreml-reference here, and verify the bundle again on a "
                "Mac: deploykit verify BUNDLE --runner coreml",
            )
        coremltools = load_coremltools()
        self._units = str(options.get("compute_units", "ALL"))
        units = getattr(coremltools.ComputeUnit, self._units, None)
        if units is None:
            raise RunnerError(
                f"compute_units {self._units!r}",
                expected="ALL, CPU_ONLY, CPU_AND_GPU or CPU_AND_NE",
            )
        self._package = read_package(Path(path))
        try:
            self._model = coremltools.models.MLModel(
                str(package_folder(Path(path))), compute_units=units
            )
        except RuntimeError as error:
            raise RunnerError(f"Core ML refuses {path}: {error}") from error

    def info(self) -> Mapping[str, Any]:
        """What `deploykit.runners.base.Backend.info` asks for."""
        return {
            "runtime": "Core ML",
            "version": platform.mac_ver()[0],
            "kernels": self._units,
            "threads": 0,
            "details": {"coremltools": version("coremltools"), "opset": self._package.opset},
        }

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run once for each batch of the package's own size.

        Args:
            inputs: Input name → array in the package's own dtype; an image input takes the
                network's normalized tensor, which is rounded to 8-bit pixels.

        Raises:
            RunnerError: another set of inputs, or the runtime's own words.
        """
        types = dict(self._package.inputs)
        if set(inputs) != set(types):
            raise RunnerError(
                f"inputs {sorted(inputs)}", expected=f"the inputs of the package: {sorted(types)}"
            )
        images = image_inputs(self._package)
        name = next(iter(types))
        batch = max(1, types[name].shape[0])
        rows: dict[str, list[Array]] = {}
        for start in range(0, len(inputs[name]), batch):
            given = {n: a[start : start + batch] for n, a in inputs.items()}
            sample = {
                n: as_image(a, images[n]) if n in images else np.ascontiguousarray(a)
                for n, a in given.items()
            }
            try:
                found = self._model.predict(sample)
            except RuntimeError as error:
                raise RunnerError(f"Core ML failed: {error}") from error
            for output, value in found.items():
                if isinstance(value, np.ndarray):
                    rows.setdefault(output, []).append(value)
        return {n: r[0] if len(r) == 1 else np.concatenate(r) for n, r in rows.items()}


def as_image(tensor: Array, contract: Preprocess) -> Any:
    """The Pillow image of a normalized tensor (1, C, H, W), rounded to 8 bits.

    Raises:
        RunnerError: the tensor is outside of what an image can be.
    """
    from PIL import Image

    pixels = np.rint(pixels_of(tensor, contract))[0]
    if pixels.min() < 0 or pixels.max() > 255:
        raise RunnerError(
            f"golden inputs are pixels from {pixels.min():g} to {pixels.max():g}",
            expected="0 to 255: golden inputs that were made from images",
        )
    channels: Array = pixels.astype(np.uint8).transpose(1, 2, 0)
    if contract.color == "GRAY":
        return Image.fromarray(channels[..., 0])
    # Core ML orders the channels of an image itself, as the package says: give it RGB.
    return Image.fromarray(channels[..., ::-1] if contract.color == "BGR" else channels)
