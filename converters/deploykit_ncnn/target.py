"""What the definition names: how a stage becomes a file of ncnn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from deploykit.errors import ContractError, NoIntegerLayersError
from deploykit.model import Model, Precision
from deploykit.target import Artifact, ArtifactRequest
from deploykit.tensors import TensorSpec
from deploykit_ncnn.definition import NAME

if TYPE_CHECKING:
    from deploykit_ncnn.lower_graph import LoweredGraph
    from deploykit_quantize.policy import Policy


def write_artifact(model: Model, request: ArtifactRequest) -> Artifact:
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


def choose_policy(precision: Precision, options: Mapping[str, str]) -> Policy | None:
    """How a precision is quantized, given options; None where the float stage is written.

    Raises:
        ContractError: an unknown option or value.
    """
    from deploykit_ncnn.options import WriteOptions
    from deploykit_ncnn.policy import policy_of

    return policy_of(precision, WriteOptions.parse(options))


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
    """Value of the stage → blob, and how each of those is held; inputs are given, not computed."""
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
