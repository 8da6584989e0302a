"""Golden vectors: inputs, and what the reference, each stage and each runner gave for them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from deploykit.array_file import array_bytes, open_npz
from deploykit.errors import BundleError
from deploykit.tensors import FloatArray


@dataclass(frozen=True)
class Golden:
    """Golden vectors, all float32 and in the source's layout (NCHW), by value name.

    Attributes:
        inputs: Input name → (n, ...).
        reference: Output name → (n, ...), of the float reference.
        stages: Stage key (``fused``, ``tflite.int8``, ...) → output name → (n, ...).
        runs: Artefact's file → runner → output name → (n, ...): what that runner gave.
        sensitivity: Output name → how far rounding alone moves it, over its range
            (`deploykit.parity.sensitivity`); empty if that was not measured.
    """

    inputs: Mapping[str, FloatArray]
    reference: Mapping[str, FloatArray]
    stages: Mapping[str, Mapping[str, FloatArray]]
    runs: Mapping[str, Mapping[str, Mapping[str, FloatArray]]] = field(default_factory=dict)
    sensitivity: Mapping[str, float] = field(default_factory=dict)

    def first(self, count: int) -> Golden:
        """The vectors of the first ``count`` samples."""

        def cut(arrays: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
            return {name: array[:count] for name, array in arrays.items()}

        return Golden(
            cut(self.inputs),
            cut(self.reference),
            {stage: cut(outputs) for stage, outputs in self.stages.items()},
            {
                file: {runner: cut(outputs) for runner, outputs in runs.items()}
                for file, runs in self.runs.items()
            },
            self.sensitivity,
        )

    def to_npz(self) -> bytes:
        """The vectors as an .npz; the same bytes for the same vectors.

        Entries: ``input/NAME``, ``reference/NAME``, ``stage/KEY/NAME``, ``run/FILE/RUNNER/NAME``,
        ``sensitivity/NAME``.
        """
        entries: dict[str, FloatArray] = {}
        entries |= {f"input/{k}": v for k, v in self.inputs.items()}
        entries |= {f"reference/{k}": v for k, v in self.reference.items()}
        entries |= {
            f"sensitivity/{k}": np.array(v, np.float32) for k, v in self.sensitivity.items()
        }
        for stage, outputs in self.stages.items():
            entries |= {f"stage/{stage}/{k}": v for k, v in outputs.items()}
        for file, by_runner in self.runs.items():
            for runner, outputs in by_runner.items():
                entries |= {f"run/{file}/{runner}/{k}": v for k, v in outputs.items()}
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in sorted(entries):
                # ZipInfo's default date is fixed (1980), so that no clock gets into the file.
                info = zipfile.ZipInfo(f"{name}.npy")
                info.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(info, array_bytes(entries[name]))
        return buffer.getvalue()

    @classmethod
    def from_npz(cls, path: Path) -> Golden:
        """Read what `to_npz` wrote.

        Raises:
            BundleError: the file is damaged.
        """
        inputs: dict[str, FloatArray] = {}
        reference: dict[str, FloatArray] = {}
        stages: dict[str, dict[str, FloatArray]] = {}
        runs: dict[str, dict[str, dict[str, FloatArray]]] = {}
        sensitivity: dict[str, float] = {}
        try:
            with open_npz(path) as archive:
                for entry in archive.names:
                    array = archive.read(entry)
                    if array.dtype != np.float32:
                        raise ValueError(f"'{entry}' is {array.dtype}")
                    kind, _, rest = entry.partition("/")
                    if kind == "stage":
                        stage, _, name = rest.partition("/")
                        stages.setdefault(stage, {})[name] = array
                    elif kind == "run":
                        file, runner, name = rest.split("/", 2)
                        runs.setdefault(file, {}).setdefault(runner, {})[name] = array
                    elif kind == "sensitivity":
                        sensitivity[rest] = float(array.reshape(-1)[0])
                    else:
                        {"input": inputs, "reference": reference}[kind][rest] = array
        except (OSError, ValueError, KeyError) as error:
            raise BundleError(
                f"the golden vectors {path} cannot be read: {error}",
                advice="convert the model again",
            ) from error
        return cls(inputs, reference, stages, runs, sensitivity)
