"""What a target is asked to write, and what it writes: files in memory, with their contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deploykit.model import Precision
from deploykit.tensors import QuantParams, TensorSpec


@dataclass(frozen=True)
class ArtifactRequest:
    """What to write.

    Attributes:
        precision: What the artefact computes in.
        options: The target's own options by name, e.g. ``{"io": "float32", "input_layout":
            "NHWC"}``; the target checks them.
    """

    precision: Precision
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Artifact:
    """A target's file in memory, with its contract.

    Attributes:
        target: The target's name.
        precision: What it computes in.
        suffix: Of the artefact's path, with the dot.
        data: The file's bytes; empty if the path is a folder.
        companions: Files beside it or, if it is a folder, inside of it: suffix to the artefact's
            stem → bytes, e.g. ``.bin`` or ``.mlpackage/Manifest.json``.
        inputs: Its inputs, in its own layouts and dtypes, in order.
        outputs: Its outputs, in order.
        output_steps: Output name → the integer quantization behind it, for every output that is
            computed in integers; also where the output itself is float (``io=float32``).
        value_names: Value name of the stage → tensor name in the artefact, for layer-by-layer
            comparison; only values that exist on both sides.
        value_specs: Tensor name in the artefact → its layout and quantization.
        summary: What a user should know of it, by name: ``ops``, ``partitions``, ...
        warnings: What may go wrong with it on some machine, and what to do, in words; they become
            the report's.
    """

    target: str
    precision: Precision
    suffix: str
    data: bytes
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    companions: Mapping[str, bytes] = field(default_factory=dict)
    output_steps: Mapping[str, QuantParams] = field(default_factory=dict)
    value_names: Mapping[str, str] = field(default_factory=dict)
    value_specs: Mapping[str, TensorSpec] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def files(self, stem: str) -> dict[str, bytes]:
        """Relative path → bytes of every file, for an artefact called ``stem`` + suffix."""
        found = {stem + self.suffix: self.data} if self.data else {}
        return found | {stem + suffix: data for suffix, data in sorted(self.companions.items())}
