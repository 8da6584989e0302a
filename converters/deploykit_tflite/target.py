"""What the definition names: how a stage becomes a file of TFLite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploykit import __version__
from deploykit.lowering import LoweringTable
from deploykit.model import Model, Precision
from deploykit.target import Artifact, ArtifactRequest
from deploykit.target_options import check_options
from deploykit.tensors import Layout, QuantParams, TensorSpec
from deploykit_tflite.definition import NAME
from deploykit_tflite.options import OPTIONS

if TYPE_CHECKING:
    from deploykit_quantize.policy import Policy
    from deploykit_tflite.lower_graph import LoweredGraph

_IDENTIFIER = b"TFL3"


def write_artifact(model: Model, request: ArtifactRequest) -> Artifact:
    """Lower a fused or quantized stage to a .tflite file in memory.

    Args:
        model: A fused stage (fp32, fp16, w8) or a QDQ stage (int8); static shapes.
        request: Options: ``io`` (auto, float32, uint8, int8) and ``input_layout`` (NHWC,
            NCHW); ``ethos_u``: the file compiled for that NPU is a companion.

    Raises:
        RunnerError: the NPU's compiler refuses the file.
        UnsupportedOpsError: with every op that has no lowering.
        ContractError: an unknown option, or a stage that does not fit the precision.
        MissingDependencyError: the extra ``tflite`` is not installed.
    """
    from deploykit.graph.channel_order import channel_orders
    from deploykit_tflite.compile_ethos_u import compile_for
    from deploykit_tflite.lower_graph import lower_graph
    from deploykit_tflite.options import WriteOptions
    from deploykit_tflite.stage_graph import stage_graph
    from deploykit_tflite.write_flatbuffer import load_schema, write_flatbuffer

    options = WriteOptions.parse(request.options, request.precision)
    load_schema()
    stage, stage_values = stage_graph(model, request.precision)
    lowered = lower_graph(stage, request.precision, options)
    description = f"{model.name}, {request.precision.value}, written by deploykit {__version__}"
    written = write_flatbuffer(lowered.graph, description)
    graph = lowered.graph
    value_names = {
        stage_values[value]: graph.tensors[tensor].name
        for value, tensor in lowered.value_tensors.items()
        if value in stage_values
    }
    orders = {} if stage.params else channel_orders(stage.model)
    specs = _value_specs(lowered, orders)
    outputs = tuple(map(graph.spec, graph.outputs, graph.output_layouts))
    compiled = {}
    if options.ethos_u != "no":
        compiled[f".{options.ethos_u}.tflite"] = compile_for(written.data, options.ethos_u)
    return Artifact(
        target=NAME,
        precision=request.precision,
        suffix=".tflite",
        data=written.data,
        inputs=tuple(map(graph.spec, graph.inputs, graph.input_layouts)),
        outputs=outputs,
        output_steps=_output_steps(outputs, value_names, specs),
        value_names=value_names,
        value_specs=specs,
        summary={
            "ops": sum(written.op_counts.values()),
            "op_counts": written.op_counts,
            "min_runtime_version": written.min_runtime_version,
        },
        companions=compiled,
    )


def choose_policy(precision: Precision, options: Mapping[str, str]) -> Policy | None:
    """How a precision is quantized, given options; None where the float stage is written.

    Raises:
        ContractError: an unknown option or value.
    """
    from deploykit_tflite.policy import policy_of

    check_options(NAME, OPTIONS, options)
    return policy_of(precision)


def check_request(request: ArtifactRequest) -> None:
    """Integers at the ends of a float file, and an NPU without its compiler, are refused.

    Raises:
        ContractError: what the options contradict.
        UserError: the compiler's environment is not made.
    """
    from deploykit.runners.process import check_installed
    from deploykit.runners.registry import find_runner
    from deploykit_tflite.ethos_u import RUNNER
    from deploykit_tflite.options import WriteOptions

    if WriteOptions.parse(request.options, request.precision).ethos_u != "no":
        check_installed(find_runner(RUNNER))


def recognizes(path: Path) -> bool:
    """Whether a file bears the format's identifier."""
    try:
        with path.open("rb") as stream:
            return stream.read(8)[4:] == _IDENTIFIER
    except OSError:
        return False


def lowering_table() -> LoweringTable[Any]:
    """The table of `deploykit_tflite.lower_graph`."""
    import deploykit_tflite.lower_graph  # noqa: F401 - it registers every lowering
    from deploykit_tflite.lowering_context import TABLE

    return TABLE


def _output_steps(
    outputs: Sequence[TensorSpec],
    value_names: Mapping[str, str],
    specs: Mapping[str, TensorSpec],
) -> dict[str, QuantParams]:
    """The integers behind each output: its own, or those that the last DEQUANTIZE reads."""
    steps = {}
    for output in outputs:
        computed = specs.get(value_names.get(output.name, output.name), output)
        params = output.quantization or computed.quantization
        if params is not None:
            steps[output.name] = params
    return steps


def _value_specs(
    lowered: LoweredGraph, orders: Mapping[str, tuple[int, ...]]
) -> dict[str, TensorSpec]:
    """Tensor name → its contract.

    Args:
        lowered: The graph as it was lowered.
        orders: Value name → order of its channels, as against the stage that was given.
    """
    from deploykit_tflite import layout

    specs = {}
    for value, tensor in lowered.value_tensors.items():
        held: Layout = "NHWC" if lowered.value_ranks[value] == layout.HELD_RANK else "plain"
        spec = lowered.graph.spec(tensor, held)
        specs[spec.name] = replace(spec, channel_order=orders.get(value, ()))
    return specs
