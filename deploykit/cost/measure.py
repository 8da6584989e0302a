"""Measured times beside the counts: each layer of the fused stage, and the whole.

A target that can time its own files says so by a method ``measure_files`` (`MeasuringTarget`).
Runtimes hand a whole network to one kernel library, which tells nobody what a layer took; so each
layer is written as a file of its own, with its real shapes and weights, by the target's own writer.
All files and the whole network run in turn, round after round, so that a drift of the machine's
speed hits all alike; each timed run follows one that is not timed, since in a network a layer's
input was just written by the layer before it.

What that means for the figures: a layer's time holds the runtime's overhead of one call and finds
its weights in the cache, and does not hold what a library fuses over several layers. The sum of the
layers therefore differs from the whole (0.76 to 1.01 of it where it was tried); both are told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from deploykit.cost.count import pair_nodes
from deploykit.cost.find_absorbed import find_absorbed
from deploykit.cost.layer import Measurement, ModelProfile, ProfiledRun
from deploykit.errors import UnsupportedModelError, UserError
from deploykit.model import Model, Precision

if TYPE_CHECKING:
    import onnx_ir as ir

METHOD = (
    "median {clock} time of one inference that follows another; each layer in a file of its own"
)


@dataclass(frozen=True)
class MeasuredFiles:
    """What a target measured.

    Attributes:
        runtime: Runtime, version, kernel set and threads, in words.
        clock: ``CPU`` or ``wall clock``.
        us: Microseconds of one inference of each file, in order: the median over rounds.
    """

    runtime: str
    clock: str
    us: tuple[float, ...]


@runtime_checkable
class MeasuringTarget(Protocol):
    """A target that can time its own files."""

    def measure_files(
        self, files: Sequence[bytes], *, rounds: int, threads: int, timeout_s: float
    ) -> MeasuredFiles:
        """Run files in turn, ``rounds`` times, in a process of its own.

        Raises:
            RunnerError: the runtime refuses a file, crashes, or takes too long.
        """


@runtime_checkable
class ProfilingTarget(Protocol):
    """A target whose runtime has a profiler of its own."""

    def profile_ops(self, file: bytes, *, runs: int, timeout_s: float) -> ProfiledRun:
        """Run a file ``runs`` times under the runtime's profiler.

        Raises:
            RunnerError: there is no profiler in the runtime that is installed, or it fails.
        """


def measure_profile(
    profile: ModelProfile,
    fused: Model,
    target_name: str,
    *,
    rounds: int = 30,
    threads: int = 1,
    timeout_s: float = 300.0,
    runtime_profiler: bool = False,
) -> ModelProfile:
    """The profile with measured times of its fused stage, in fp32.

    Args:
        profile: As `deploykit.cost.profile.profile_model` gives it.
        fused: The fused stage that it was made from.
        target_name: Whose runtime measures, e.g. ``tflite``.
        rounds: Of which each time is the median.
        threads: Threads of the runtime.
        timeout_s: Seconds that the whole measurement may take.
        runtime_profiler: Whether the whole also runs under the runtime's own profiler.

    Raises:
        UserError: the target cannot measure, or the model is quantized already.
        UnsupportedOpsError: the whole cannot be lowered.
        RunnerError: the runtime refuses a file, crashes, or takes too long.
    """
    from deploykit.graph.qdq import has_qdq
    from deploykit.target import ArtifactRequest, find_target

    target = find_target(target_name)
    if not isinstance(target, MeasuringTarget):
        raise UserError(
            f"the target {target_name} cannot measure", expected="a target with measure_files"
        )
    if has_qdq(fused.graph):
        raise UserError(
            "measuring a model that is quantized already",
            expected="a float model: its layers are measured one by one, in fp32",
            advice="leave out --measure, or measure the model that it was quantized from",
        )
    request = ArtifactRequest(Precision.FP32)
    files = [target.write(fused, request).data]
    names: list[str] = []
    unmeasured: dict[str, str] = {}
    for layer, graph in zip(profile.after.layers, split_layers(fused.graph), strict=True):
        if layer.is_view:
            unmeasured[layer.name] = "a view: it moves nothing"
            continue
        try:
            files.append(target.write(replace(fused, graph=graph), request).data)
        except UnsupportedModelError as error:
            unmeasured[layer.name] = error.found
        else:
            names.append(layer.name)
    profiled = None
    if runtime_profiler:
        if not isinstance(target, ProfilingTarget):
            raise UserError(f"the runtime of {target_name} has no profiler that we can use")
        profiled = target.profile_ops(files[0], runs=rounds, timeout_s=timeout_s)
    found = target.measure_files(files, rounds=rounds, threads=threads, timeout_s=timeout_s)
    return replace(
        profile,
        measurement=Measurement(
            runtime=found.runtime,
            method=METHOD.format(clock=found.clock),
            whole_us=found.us[0],
            layer_us=dict(zip(names, found.us[1:], strict=True)),
            unmeasured=unmeasured,
            rounds=rounds,
            profiled=profiled,
        ),
    )


def split_layers(model: ir.Model) -> list[ir.Model]:
    """One model a layer, in the order of the graph: a node with the clamp that it absorbs."""
    pairs = pair_nodes(model.graph, find_absorbed(model.graph))
    return [_extract(model, [n for n in pair if n is not None]) for pair in pairs]


def _extract(model: ir.Model, nodes: Sequence[ir.Node]) -> ir.Model:
    """A model of some nodes: what they read from elsewhere becomes inputs, or stays constant."""
    import onnx_ir as ir

    from deploykit.graph.reading import is_constant

    copies: dict[ir.Value, ir.Value] = {}
    inputs: list[ir.Value] = []
    constants: list[ir.Value] = []
    made = {value for node in nodes for value in node.outputs}
    for node in nodes:
        for value in node.inputs:
            if value is None or value in copies or value in made:
                continue
            copy = _copied(value)
            copies[value] = copy
            (constants if is_constant(value) else inputs).append(copy)
    clones = []
    for node in nodes:
        outputs = [_copied(value) for value in node.outputs]
        copies.update(zip(node.outputs, outputs, strict=True))
        clones.append(
            ir.Node(
                node.domain,
                node.op_type,
                [None if value is None else copies[value] for value in node.inputs],
                list(node.attributes.values()),
                outputs=outputs,
                name=node.name,
                metadata_props=dict(node.metadata_props),
            )
        )
    graph = ir.Graph(
        inputs,
        [copies[value] for value in nodes[-1].outputs if value.name],
        nodes=clones,
        initializers=constants,
        opset_imports=dict(model.graph.opset_imports),
        name="layer",
    )
    functions = [f for key, f in model.functions.items() if key[:2] in _ops(nodes)]
    return ir.Model(graph, ir_version=model.ir_version, functions=functions)


def _ops(nodes: Sequence[ir.Node]) -> set[tuple[str, str]]:
    return {(node.domain, node.op_type) for node in nodes}


def _copied(value: ir.Value) -> ir.Value:
    import onnx_ir as ir

    return ir.Value(
        name=value.name, shape=value.shape, type=value.type, const_value=value.const_value
    )
