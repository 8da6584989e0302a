"""What the definition names: how a stage becomes a file of Core ML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from deploykit.errors import ContractError, NoIntegerLayersError
from deploykit.model import Model, Precision
from deploykit.target import Artifact, ArtifactRequest
from deploykit.target_options import check_options
from deploykit.tensors import QuantParams, TensorSpec
from deploykit_coreml import package_format
from deploykit_coreml.definition import NAME
from deploykit_coreml.options import OPTIONS

if TYPE_CHECKING:
    from deploykit_coreml.lower_graph import LoweredProgram, StageGraph
    from deploykit_coreml.options import WriteOptions
    from deploykit_coreml.write_package import WrittenPackage
    from deploykit_quantize.policy import Policy


def write_artifact(model: Model, request: ArtifactRequest) -> Artifact:
    """Lower a fused or quantized stage to an .mlpackage in memory.

    Args:
        model: A fused stage (fp32, fp16, w8), one with quantized weights alone (w8), or a QDQ
            stage (int8); static shapes.
        request: Options: see `deploykit_coreml.options`.

    Raises:
        UnsupportedOpsError: with every op that has no lowering.
        ContractError: an unknown option, one that the chosen iOS lacks, or a stage that does
            not fit the precision.
        MissingDependencyError: the extra ``coreml`` is not installed.
    """
    from deploykit_coreml.lower_graph import lower_graph
    from deploykit_coreml.options import WriteOptions
    from deploykit_coreml.write_package import PackageDescription, write_package

    options = WriteOptions.parse(request.options, request.precision)
    stage, stage_values = _stage_graph(model, request.precision)
    lowered = lower_graph(stage, options)
    inputs = tuple(
        _end(s, lowered.inputs, options, image=options.image_input) for s in model.inputs
    )
    description = PackageDescription(
        model_name=model.name,
        precision=request.precision.value,
        preprocess=model.preprocess,
        image_input=inputs[0].runtime_name if options.image_input else "",
        labels=model.labels or (),
        image_size=model.inputs[0].shape[2:] if options.image_input else (0, 0),  # type: ignore[arg-type]
    )
    written = write_package(lowered, options, description)
    return _artifact(model, request.precision, options, lowered, written, inputs, stage_values)


def choose_policy(precision: Precision, options: Mapping[str, str]) -> Policy | None:
    """How a precision is quantized, given options; None where the float stage is written.

    Raises:
        ContractError: an unknown option or value.
    """
    from deploykit_coreml.policy import policy_of

    check_options(NAME, OPTIONS, options)
    return policy_of(precision)


def check_request(request: ArtifactRequest) -> None:
    """What the chosen iOS lacks is refused.

    Raises:
        ContractError: what the options contradict, and the iOS that has it.
    """
    from deploykit_coreml.options import WriteOptions

    WriteOptions.parse(request.options, request.precision)


def _end(
    spec: TensorSpec, names: Mapping[str, str], options: WriteOptions, *, image: bool = False
) -> TensorSpec:
    """An input or output as the package has it; a name there is an identifier."""
    dtype, held = "float32" if image else options.io, names[spec.name]
    tensor = "" if held == spec.name else held
    return TensorSpec(spec.name, spec.shape, dtype, spec.layout, tensor=tensor)


def _artifact(
    model: Model,
    precision: Precision,
    options: WriteOptions,
    lowered: LoweredProgram,
    written: WrittenPackage,
    inputs: tuple[TensorSpec, ...],
    stage_values: Mapping[str, str],
) -> Artifact:
    outputs = tuple(_end(s, lowered.outputs, options) for s in model.outputs)
    ends = {s.runtime_name for s in (*inputs, *outputs)}
    names, specs = _values(lowered, stage_values, options, ends)
    summary: dict[str, object] = {
        "ops": sum(written.op_counts.values()),
        "op_counts": dict(written.op_counts),
        "ios": options.ios,
        "opset": package_format.OPSETS[options.ios],
        "compute": options.compute,
    }
    if options.image_input and model.preprocess is not None:
        summary["image"] = {"name": inputs[0].runtime_name, "color": model.preprocess.color}
    if options.palette_bits:
        summary["palette_bits"] = options.palette_bits
    if lowered.scale_error > 0:
        summary["scale_rounding"] = float(f"{lowered.scale_error:.2g}")
    return Artifact(
        target=NAME,
        precision=precision,
        suffix=package_format.SUFFIX,
        data=b"",
        inputs=inputs,
        outputs=outputs,
        output_steps=_steps(lowered, outputs),
        value_names=names,
        value_specs=specs,
        summary=summary,
        companions={
            f"{package_format.SUFFIX}/{path}": data for path, data in written.files.items()
        },
    )


def _steps(lowered: LoweredProgram, outputs: tuple[TensorSpec, ...]) -> dict[str, QuantParams]:
    found = {spec.name: lowered.quantized.get(spec.name) for spec in outputs}
    return {name: held.params for name, held in found.items() if held is not None}


def _values(
    lowered: LoweredProgram,
    stage_values: Mapping[str, str],
    options: WriteOptions,
    ends: set[str],
) -> tuple[dict[str, str], dict[str, TensorSpec]]:
    """Value of the stage → tensor of the package, and how each of those is held."""
    names: dict[str, str] = {}
    specs: dict[str, TensorSpec] = {}
    for value, variable in lowered.variables.items():
        if value not in stage_values or value not in lowered.shapes:
            continue
        if stage_values[value] in names:
            continue  # the reals of integers that are named already, for a reader in floats
        held, shape = lowered.quantized.get(value), lowered.shapes[value]
        if held is not None:
            spec = TensorSpec(held.name, shape, held.params.dtype, "plain", held.params)
        elif value in lowered.inputs:
            continue  # an input is given, not computed
        else:
            dtype = options.io if variable in ends else options.compute
            spec = TensorSpec(variable, shape, dtype)
        names[stage_values[value]] = spec.name
        specs[spec.name] = spec
    return names, specs


def _stage_graph(model: Model, precision: Precision) -> tuple[StageGraph, Mapping[str, str]]:
    """What is lowered, and: value name there → value name of the stage."""
    from deploykit.graph.qdq import fold_qdq, has_qdq
    from deploykit_coreml.lower_graph import StageGraph

    if not has_qdq(model.graph):
        if precision is Precision.INT8:
            raise NoIntegerLayersError
        graph = model.graph
        values = [*graph.graph.inputs, *(v for node in graph.graph for v in node.outputs)]
        names = {v.name: v.name for v in values if v.name}
        compress = precision is Precision.W8
        return StageGraph(
            graph, preprocess=model.preprocess, labels=model.labels, compress=compress
        ), names
    folded = fold_qdq(model.graph)
    weights_only = set(folded.params) <= set(folded.integers)
    if precision is not (Precision.W8 if weights_only else Precision.INT8):
        raise ContractError(
            f"precision {precision.value} from a model with quantized "
            f"{'weights' if weights_only else 'activations'}",
            expected="w8 where weights alone are quantized, int8 where activations are too",
        )
    stage = StageGraph(folded.model, folded.params, folded.integers, model.preprocess, model.labels)
    return stage, folded.stage_values
