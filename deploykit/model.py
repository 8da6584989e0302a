"""A model at one stage of its way, with all that travels with it.

    source ──> exported ──simplify──> simplified ──fuse──> fused ──policy──> prepared ──table──>
    quantized

Every stage is a valid ONNX model that ONNX Runtime runs; the graph is an `onnx_ir.Model`, and
there is no representation of our own. Stages do not share nodes (each is a clone), but they share
the weights that no pass changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploykit.preprocess import ContractOrigin, Preprocess
from deploykit.printable import printable_name
from deploykit.tensors import Array, Layout, TensorSpec

if TYPE_CHECKING:
    import onnx_ir as ir


class Stage(Enum):
    """Where on its way a model stands; the order is the order of the way."""

    EXPORTED = "exported"
    SIMPLIFIED = "simplified"
    FUSED = "fused"
    PREPARED = "prepared"
    QUANTIZED = "quantized"


class Precision(Enum):
    """What an artefact computes in.

    fp32: float32 weights and activations. fp16: float16 weights. w8: int8 weights, activations
    quantized by the runtime (dynamic range). int8: int8 weights and activations (full integer).
    """

    FP32 = "fp32"
    FP16 = "fp16"
    W8 = "w8"
    INT8 = "int8"


@dataclass(frozen=True)
class PassNote:
    """One thing that a pass did, or did not do and why.

    Attributes:
        pass_name: Name of the pass, e.g. ``fold_batchnorm``.
        node: Name of the node it looked at.
        matched: Whether it rewrote the node.
        reason: What it did, or why it did not.
    """

    pass_name: str
    node: str
    matched: bool
    reason: str


@dataclass(frozen=True)
class SourceInfo:
    """Where a model came from, and how to come by its float reference again.

    Attributes:
        kind: ``checkpoint``, ``safetensors``, ``exported_program``, ``torchscript``, ``onnx``,
            ``pickled_module``, ``keras``, ``saved_model`` or ``module`` (an object in memory).
        path: The file as it was given; empty for an object in memory.
        sha256: Hash of the file; empty for an object in memory.
        arch: The architecture's name, where there is one, e.g. ``timm/ghostnet_100``.
        load_options: Plain data from which `deploykit.sources.LoadOptions` is built again, so
            that the ``torch`` runner can load the same thing in a separate process.
        reference: Name of the runner that gives the float reference: ``torch`` for what torch
            can run, ``tensorflow`` for what TensorFlow can, ``onnxruntime`` (of the exported
            stage) for an .onnx file.
    """

    kind: str
    path: str = ""
    sha256: str = ""
    arch: str = ""
    load_options: Mapping[str, Any] = field(default_factory=dict)
    reference: str = "onnxruntime"


@dataclass(frozen=True)
class Model:
    """One stage of one model.

    Attributes:
        graph: The ONNX model. Treat it as frozen: passes work on `clone`s.
        stage: Which stage it is.
        name: The model's name, used for files: lower case, no spaces.
        source: Where it came from.
        preprocess: The contract of its image input, where known.
        preprocess_origin: Where that contract comes from.
        labels: Class names in the order of the output, where known.
        calibration_sample: uint8 (n, H, W, C) images that came with the checkpoint, or None.
        notes: What the passes did on the way to this stage, oldest first.
        identified: How the architecture was found from the weights, for the user; empty where the
            file or the user names it.
        channel_factors: Value name → one factor a channel (axis 1), of values that are held
            multiplied so that they lose less when they are quantized.
    """

    graph: ir.Model
    stage: Stage
    name: str
    source: SourceInfo
    preprocess: Preprocess | None = None
    labels: tuple[str, ...] | None = None
    calibration_sample: Array | None = None
    notes: tuple[PassNote, ...] = ()
    preprocess_origin: ContractOrigin = ContractOrigin.UNKNOWN
    identified: str = ""
    channel_factors: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def __repr__(self) -> str:
        """One line: name, stage, inputs and outputs."""
        ends = [
            ", ".join(f"{printable_name(s.name)[:60]} {s.shape}" for s in specs[:3])
            for specs in (self.inputs, self.outputs)
        ]
        name, arch = printable_name(self.name), printable_name(self.source.arch)[:80]
        return f"<Model {name!r} ({arch}), {self.stage.value}: {ends[0]} -> {ends[1]}>"

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The graph's inputs: float32, NCHW where they are images or feature maps (rank 4)."""
        return tuple(_spec(v) for v in self.graph.graph.inputs)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The graph's outputs, in order."""
        return tuple(_spec(v) for v in self.graph.graph.outputs)

    def advanced(self, graph: ir.Model, stage: Stage, notes: tuple[PassNote, ...]) -> Model:
        """The next stage: another graph, the same companions, the notes appended."""
        return replace(self, graph=graph, stage=stage, notes=self.notes + notes)

    def serialized(self) -> bytes:
        """The stage as the bytes of an .onnx file (no external data; under 2 GB)."""
        import onnx_ir as ir

        data: bytes = ir.to_proto(self.graph).SerializeToString(deterministic=True)
        return data

    def save(self, path: Path) -> None:
        """Write the stage as an .onnx file, atomically."""
        from deploykit.files import write_atomically

        write_atomically(path, self.serialized())


def _spec(value: ir.Value) -> TensorSpec:
    shape = tuple(int(d) for d in value.shape.numpy()) if value.shape is not None else ()
    dtype = value.dtype.numpy().name if value.dtype is not None else "float32"
    layout: Layout = "NCHW" if len(shape) == 4 else "plain"
    return TensorSpec(name=value.name or "", shape=shape, dtype=dtype, layout=layout)
