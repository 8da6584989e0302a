"""The target object: everything that the core asks of ncnn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploykit.errors import ContractError, NoIntegerLayersError
from deploykit.lowering import LoweringTable
from deploykit.model import Model, Precision
from deploykit.runners.arm64 import on_arm64
from deploykit.runners.base import RunnerDefinition
from deploykit.target import Artifact, ArtifactRequest
from deploykit.tensors import TensorSpec

if TYPE_CHECKING:
    from deploykit.target_options import TargetOption
    from deploykit_ncnn.lower_graph import LoweredGraph
    from deploykit_quantize.policy import Policy

NAME = "ncnn"
_BACKEND = "deploykit_ncnn.backends:NcnnBackend"
#: float16 storage and arithmetic: 48-60 dB and at most 6e-3 of the range on ten families on ARM
#: cores; a kernel that is wrong leaves 14-33 dB.
_FLOAT16_LIMITS = tuple(
    f"{precision}.{limit}"
    for precision in ("fp32", "fp16")
    for limit in ("max_error_over_range=2e-2", "reference_error_over_range=2e-2", "snr_db=40")
)
_RUNNERS = (
    RunnerDefinition(
        name="ncnn",
        backend=_BACKEND,
        requires="ncnn",
        extra=NAME,
        runs=NAME,
        description="ncnn on the CPU, float32 arithmetic: the same numbers on every CPU",
    ),
    RunnerDefinition(
        name="ncnn-vulkan",
        backend=_BACKEND,
        requires="ncnn",
        extra=NAME,
        runs=NAME,
        description="ncnn by Vulkan, float32 arithmetic",
        options={"vulkan": True},
        probe="deploykit_ncnn.backends:why_no_vulkan",
    ),
    RunnerDefinition(
        name="ncnn-default",
        backend=_BACKEND,
        requires="ncnn",
        extra=NAME,
        runs=NAME,
        description="ncnn on the CPU by its own options, as apps run it that set none: float16 "
        "storage, and arithmetic where the CPU has it",
        options={"arithmetic": "default"},
        limits=_FLOAT16_LIMITS,
    ),
)


@dataclass(frozen=True)
class NcnnTarget:
    """`deploykit.target.Target` for .param and .bin files; holds no state."""

    name: str = NAME
    precisions: tuple[Precision, ...] = (Precision.FP32, Precision.FP16, Precision.INT8)
    runners: tuple[RunnerDefinition, ...] = (
        *_RUNNERS,
        *(on_arm64(r) for r in _RUNNERS if not r.probe),
    )

    @property
    def options(self) -> tuple[TargetOption, ...]:
        """What ``--option ncnn.NAME=VALUE`` may say."""
        from deploykit_ncnn.options import OPTIONS

        return OPTIONS

    def policy(self, precision: Precision) -> Policy | None:
        """How a precision is quantized by default; None where the float stage is written."""
        return self.policy_with(precision, {})

    def policy_with(self, precision: Precision, options: Mapping[str, str]) -> Policy | None:
        """`deploykit.target.QuantizingByOptions`: ``depthwise`` decides.

        Raises:
            ContractError: an unknown option or value.
        """
        from deploykit_ncnn.options import WriteOptions
        from deploykit_ncnn.policy import policy_of

        return policy_of(precision, WriteOptions.parse(options))

    def write(self, model: Model, request: ArtifactRequest) -> Artifact:
        """Lower a fused or quantized stage to a .param and a .bin file in memory.

        Args:
            model: A fused stage (fp32, fp16), or a QDQ stage of this target's policy (int8);
                static shapes, batch 1.
            request: Options: see `deploykit_ncnn.options`.

        Raises:
            UnsupportedOpsError: with every op that has no lowering.
            UnsupportedModelError: an input that is not float32, or a batch other than 1.
            ContractError: an unknown option, or a stage that does not fit the precision.
        """
        from deploykit_ncnn.lower_graph import lower_graph
        from deploykit_ncnn.options import WriteOptions
        from deploykit_ncnn.write_files import write_bin, write_param

        options = WriteOptions.parse(request.options)
        _check_stage(model, request.precision)
        lowered = lower_graph(model.graph, options)
        half = request.precision is Precision.FP16
        names, specs = _values(lowered)
        return Artifact(
            target=NAME,
            precision=request.precision,
            suffix=".param",
            data=write_param(lowered.layers),
            companions={".bin": write_bin(lowered.layers, half=half)},
            inputs=tuple(_end(s, lowered.inputs[s.name], lowered) for s in model.inputs),
            outputs=tuple(_end(s, lowered.outputs[s.name], lowered) for s in model.outputs),
            value_names=names,
            value_specs=specs,
            summary=_summary(lowered),
            warnings=_not_kept(model),
        )

    def lowerings(self) -> LoweringTable[Any]:
        """The ops that it lowers, and those that it refuses with a reason."""
        from deploykit_ncnn.lower_graph import lowering_table

        return lowering_table()

    def recognizes(self, path: Path) -> bool:
        """Whether a file is a .param file, by its content."""
        from deploykit_ncnn.read_files import is_param

        return is_param(path)

    def inspect(self, path: Path) -> str:
        """A .param file, and the .bin file beside it, in words.

        Raises:
            SourceError: one of the two is missing or damaged.
        """
        from deploykit_ncnn.inspect_files import inspect_files

        return inspect_files(path)


def _check_stage(model: Model, precision: Precision) -> None:
    from deploykit.graph.qdq import has_qdq

    quantized = has_qdq(model.graph)
    if precision is Precision.INT8 and not quantized:
        raise NoIntegerLayersError(
            "keep it in floats; if all its convolutions are depthwise, they are quantized on "
            "--option ncnn.depthwise=int8"
        )
    if quantized and precision is not Precision.INT8:
        raise ContractError(
            f"precision {precision.value} from a model that is quantized",
            expected="a float model",
        )


def _end(spec: TensorSpec, blob: str, lowered: LoweredGraph) -> TensorSpec:
    """An input or output as the file has it."""
    return TensorSpec(spec.name, lowered.shapes[blob], "float32", "CHW", tensor=blob)


def _values(lowered: LoweredGraph) -> tuple[dict[str, str], dict[str, TensorSpec]]:
    """Value of the stage > blob, and how each of those is held; inputs are given, not computed."""
    names = {v: b for v, b in lowered.blobs.items() if v not in lowered.inputs}
    specs = {}
    for blob in names.values():
        params = lowered.integers.get(blob)
        dtype = params.dtype if params is not None else "float32"
        specs[blob] = TensorSpec(blob, lowered.shapes[blob], dtype, "CHW", params)
    return names, specs


def _summary(lowered: LoweredGraph) -> Mapping[str, Any]:
    from deploykit_ncnn.fp16_workaround import summarize_workaround

    counts = Counter(layer.type for layer in lowered.layers)
    summary: dict[str, Any] = {
        "ops": len(lowered.layers),
        "op_counts": dict(sorted(counts.items())),
    }
    terms = [layer.params.get(8) for layer in lowered.layers if layer.type in _INTEGER_LAYERS]
    integers = [t for t in terms if isinstance(t, int) and t > 0]
    if integers:
        summary["int8_layers"] = len(integers)
        summary["requantized"] = sum(t > 100 for t in integers)
    return summary | summarize_workaround(lowered.layers)


def _not_kept(model: Model) -> tuple[str, ...]:
    """What of a model that came quantized has no form here, and what it has become."""
    from deploykit_quantize.adopt_inputs import SYMMETRIC_INPUT, WEIGHTS_AGAIN

    inputs, weights = (
        sum(note.reason.endswith(end) for note in model.notes)
        for end in (SYMMETRIC_INPUT, WEIGHTS_AGAIN)
    )
    found = []
    if inputs:
        found.append(
            f"ncnn int8: {inputs} layers read activations that the model quantized with a zero "
            "point or as uint8; ncnn's integers are symmetric, so these are rounded over the same "
            "range in other steps, up to twice as large. Quantize with symmetric int8 activations "
            "to keep the scales"
        )
    if weights:
        found.append(
            f"ncnn int8: the weights of {weights} layers were quantized again: ncnn takes "
            "symmetric int8 with one scale an output channel, or a group in grouped convolutions"
        )
    return tuple(found)


_INTEGER_LAYERS = frozenset({"Convolution", "ConvolutionDepthWise", "InnerProduct"})
