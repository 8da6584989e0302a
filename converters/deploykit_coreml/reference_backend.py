"""The reference executor in the runner's child process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deploykit import __version__
from deploykit.errors import RunnerError
from deploykit.preprocess import Preprocess
from deploykit.runners.base import Backend
from deploykit.tensors import Array
from deploykit_coreml.execute_program import Executor
from deploykit_coreml.package_format import PREPROCESS_KEY
from deploykit_coreml.read_package import Package, read_package

RUNTIME = "reference executor, not Apple's runtime"


class ReferenceBackend(Backend):
    """One .mlpackage in our own executor.

    Args:
        path: The folder, or its Manifest.json.
        options: ``threads``: what numpy's products use is the machine's to say; told, not set.

    Raises:
        SourceError: a damaged package.
        RunnerError: an operation, parameter or type that the executor does not implement.
    """

    def __init__(self, path: str, options: Mapping[str, Any]) -> None:
        self._package = read_package(Path(path))
        self._executor = Executor(self._package)
        self._threads = int(options.get("threads", 1))

    def info(self) -> Mapping[str, Any]:
        """What `deploykit.runners.base.Backend.info` asks for."""
        package = self._package
        details = {"opset": package.opset, "operations": len(package.operations)}
        images = image_inputs(package)
        if images:
            details["image"] = "given as exact real pixels, made from the normalized tensor"
        return {
            "runtime": RUNTIME,
            "version": __version__,
            "kernels": "numpy",
            "threads": self._threads,
            "details": details,
        }

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run once, or once for each sample where the package takes one at a time.

        Args:
            inputs: Input name → array in the package's own dtype; an image input takes the
                network's own normalized tensor (float32, NCHW), and turns it back into pixels.

        Raises:
            RunnerError: a name, shape or dtype that is not the package's.
        """
        return self._run(inputs, keep_all=False)

    def run_all(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run and return every input and computed value."""
        return self._run(inputs, keep_all=True)

    def _run(self, inputs: Mapping[str, Array], *, keep_all: bool) -> dict[str, Array]:
        types = dict(self._package.inputs)
        if set(inputs) != set(types):
            raise RunnerError(
                f"inputs {sorted(inputs)}", expected=f"the inputs of the package: {sorted(types)}"
            )
        given = dict(inputs)
        for name, contract in image_inputs(self._package).items():
            given[name] = pixels_of(inputs[name], contract)
        batch = {n: t.shape[0] if t.shape else 1 for n, t in types.items()}
        counts = {len(a) // batch[n] if a.ndim else 1 for n, a in given.items()}
        if len(counts) != 1 or 0 in counts:
            raise RunnerError("inputs with different numbers of samples, or none")
        rows: dict[str, list[Array]] = {}
        for index in range(counts.pop()):
            sample = {
                n: np.ascontiguousarray(a[index * batch[n] : (index + 1) * batch[n]])
                for n, a in given.items()
            }
            for name, value in self._executor.run(sample, keep_all=keep_all).items():
                rows.setdefault(name, []).append(np.asarray(value))
        return {n: r[0] if len(r) == 1 else np.concatenate(r) for n, r in rows.items()}


def image_inputs(package: Package) -> dict[str, Preprocess]:
    """Name → contract of each input that is an image.

    Raises:
        RunnerError: the package does not say how its images are normalized.
    """
    found = {}
    for name, _ in package.inputs:
        feature = package.features.get(name)
        if feature is None or feature.kind != "image":
            continue
        text = package.metadata.get(PREPROCESS_KEY)
        if text is None:
            raise RunnerError(
                f"input '{name}' is an image and the package has no {PREPROCESS_KEY}",
                expected="a package that deploykit wrote",
            )
        found[name] = Preprocess.from_dict(json.loads(text))
    return found


def pixels_of(tensor: Array, contract: Preprocess) -> Array:
    """Real pixels (0..255 for an image) from the normalized tensor: float32 (n, C, H, W)."""
    mean = np.asarray(contract.mean, np.float64).reshape(1, -1, 1, 1)
    std = np.asarray(contract.std, np.float64).reshape(1, -1, 1, 1)
    pixels: Array = ((tensor.astype(np.float64) * std + mean) * 255).astype(np.float32)
    return pixels
