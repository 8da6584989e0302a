"""The target object: everything that the core asks of TFLite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploykit import __version__
from deploykit.lowering import LoweringTable
from deploykit.model import Model, Precision
from deploykit.runners.arm64 import on_arm64
from deploykit.runners.base import RunnerDefinition
from deploykit.runners.environments import Environment
from deploykit.target import Artifact, ArtifactRequest
from deploykit.target_options import TargetOption
from deploykit.tensors import Layout, QuantParams, TensorSpec
from deploykit_tflite.options import OPTIONS

if TYPE_CHECKING:
    from deploykit.cost.layer import ProfiledRun
    from deploykit.cost.measure import MeasuredFiles
    from deploykit.lint.delegate_split import DelegateSplit
    from deploykit_quantize.policy import Policy
    from deploykit_tflite.lower_graph import LoweredGraph

NAME = "tflite"
_BACKEND = "deploykit_tflite.backends:LiteRtBackend"
_IDENTIFIER = b"TFL3"


#: The oldest runtime that phones in the field still have; its last release is of 2023.
TFLITE_RUNTIME = Environment(
    name="tflite-runtime",
    requirements=("tflite-runtime==2.14.0", "numpy<2"),
    python="3.11",
    imports="tflite_runtime.interpreter",
)


def _runner(name: str, kernels: str, description: str) -> RunnerDefinition:
    return RunnerDefinition(
        name=name,
        backend=_BACKEND,
        requires="ai_edge_litert",
        extra="tflite",
        runs=NAME,
        description=description,
        options={"kernels": kernels},
    )


_RUNNERS = (
    _runner("litert", "xnnpack", "LiteRT with XNNPACK, as phones run it on the CPU"),
    _runner("litert-reference", "reference", "LiteRT's reference kernels, the golden"),
)
_SECOND_OPINIONS = (
    RunnerDefinition(
        name="tensorflow-lite",
        backend=_BACKEND,
        requires="tensorflow",
        extra="tensorflow",
        runs=NAME,
        description="TensorFlow's own interpreter with XNNPACK, on request",
        options={"kernels": "xnnpack", "package": "tensorflow"},
        on_request=True,
    ),
    RunnerDefinition(
        name="tflite-runtime",
        backend=_BACKEND,
        requires="",
        extra="",
        runs=NAME,
        description="tflite-runtime 2.14 with XNNPACK, the oldest in the field, on request",
        options={"kernels": "xnnpack", "package": "tflite_runtime"},
        on_request=True,
        environment=TFLITE_RUNTIME,
    ),
)


@dataclass(frozen=True)
class TfliteTarget:
    """`deploykit.target.Target` for .tflite files; holds no state."""

    name: str = NAME
    precisions: tuple[Precision, ...] = (
        Precision.FP32,
        Precision.FP16,
        Precision.W8,
        Precision.INT8,
    )
    options: tuple[TargetOption, ...] = OPTIONS
    runners: tuple[RunnerDefinition, ...] = (
        *_RUNNERS,
        *_SECOND_OPINIONS,
        *map(on_arm64, _RUNNERS),
    )

    def lowerings(self) -> LoweringTable[Any]:
        """The table of `deploykit_tflite.lower_graph`."""
        import deploykit_tflite.lower_graph  # noqa: F401 - it registers every lowering
        from deploykit_tflite.lowering_context import TABLE

        return TABLE

    def policy(self, precision: Precision) -> Policy | None:
        """How a precision is quantized; None where the float stage is written as it is."""
        from deploykit_tflite.policy import policy_of

        return policy_of(precision)

    def check_request(self, request: ArtifactRequest) -> None:
        """`deploykit.target.CheckingTarget`: integers at the ends of a float file are refused.

        Raises:
            ContractError: what the options contradict.
        """
        from deploykit_tflite.options import WriteOptions

        WriteOptions.parse(request.options, request.precision)

    def write(self, model: Model, request: ArtifactRequest) -> Artifact:
        """Lower a fused or quantized stage to a .tflite file in memory.

        Args:
            model: A fused stage (fp32, fp16, w8) or a QDQ stage (int8); static shapes.
            request: Options: ``io`` (auto, float32, uint8, int8) and ``input_layout`` (NHWC,
                NCHW).

        Raises:
            UnsupportedOpsError: with every op that has no lowering.
            ContractError: an unknown option, or a stage that does not fit the precision.
            MissingDependencyError: the extra ``tflite`` is not installed.
        """
        from deploykit.graph.channel_order import channel_orders
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
        )

    def recognizes(self, path: Path) -> bool:
        """Whether a file bears the format's identifier."""
        try:
            with path.open("rb") as stream:
                return stream.read(8)[4:] == _IDENTIFIER
        except OSError:
            return False

    def inspect(self, path: Path) -> str:
        """A .tflite file in words.

        Raises:
            SourceError: the file is missing, damaged, or no TFLite file.
        """
        from deploykit_tflite.inspect_file import inspect_file

        return inspect_file(path)

    def measure_files(
        self, files: Sequence[bytes], *, rounds: int, threads: int, timeout_s: float
    ) -> MeasuredFiles:
        """`deploykit.cost.measure.MeasuringTarget`: LiteRT with XNNPACK.

        Raises:
            RunnerError: the runtime refuses a file, crashes, or takes too long.
        """
        from deploykit_tflite.measure_files import measure_files

        return measure_files(files, rounds=rounds, threads=threads, timeout_s=timeout_s)

    def profile_ops(self, file: bytes, *, runs: int, timeout_s: float) -> ProfiledRun:
        """`deploykit.cost.measure.ProfilingTarget`: LiteRT's own profiler.

        Raises:
            RunnerError: the runtime has no such profiler, crashes, or takes too long.
        """
        from deploykit_tflite.profile_ops import profile_ops

        return profile_ops(file, runs=runs, timeout_s=timeout_s)

    def delegate_splits(self, fused: Model, precision: Precision) -> tuple[DelegateSplit, ...]:
        """`deploykit.lint.delegate_split.DelegatingTarget`: what XNNPACK leaves.

        Raises:
            UnsupportedOpsError: with every op that has no lowering.
        """
        from deploykit_tflite.delegate_splits import find_delegate_splits

        return find_delegate_splits(fused, precision)


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
    """Tensor name > its contract.

    Args:
        lowered: The graph as it was lowered.
        orders: Value name > order of its channels, as against the stage that was given.
    """
    from deploykit_tflite import layout

    specs = {}
    for value, tensor in lowered.value_tensors.items():
        held: Layout = "NHWC" if lowered.value_ranks[value] == layout.HELD_RANK else "plain"
        spec = lowered.graph.spec(tensor, held)
        specs[spec.name] = replace(spec, channel_order=orders.get(value, ()))
    return specs
