"""Layer by layer with the artefact's own inputs: what each layer of it does wrong by itself.

Two int8 implementations that both round rightly still part: a value within a hair of the middle
between two steps goes one way here and the other way there, and dozens of layers carry the one
step on. So the end-to-end difference of a deep int8 network says little about its conversion (a
file can be 9 output steps from its own simulation with not one layer wrong). What can be verified
is each layer alone: the stage is cut at every value that the artefact has, each piece is fed what
the *artefact* computed before it, and must come out within a step or two of what the artefact
computed after it. A wrong weight, scale, padding or activation shows at its own layer, and
nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from deploykit.model import Model
from deploykit.parity.layers import LayerDifference, layer_rows
from deploykit.parity.samples import encoded_batches
from deploykit.parity.stages import opened_stage
from deploykit.runners.base import Runner, RunnerSpec
from deploykit.runners.process import OutputsOnlyError, open_runner
from deploykit.verdict import LayerRow

if TYPE_CHECKING:
    from deploykit.tensors import FloatArray, TensorSpec

#: Every value of a sample is held at once; each holds thousands of elements to verify by.
_BATCHES = 2
_GIVEN = "given:"


class HeldValues(Protocol):
    """What is asked of an artefact, in memory or of a bundle: how it holds the stage's values."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """In its own layouts and dtypes."""

    @property
    def value_names(self) -> Mapping[str, str]:
        """Value of the stage → its tensor."""

    @property
    def value_specs(self) -> Mapping[str, TensorSpec]:
        """Tensor → how it holds the value."""


def measure_local_errors(
    path: Path,
    artifact: HeldValues,
    stage: Model,
    *,
    runner: str,
    inputs: Mapping[str, FloatArray],
    options: Mapping[str, object] | None = None,
    timeout_s: float = 120.0,
    open_with: Callable[[RunnerSpec], Runner] = open_runner,
) -> tuple[LayerRow, ...]:
    """Each layer's own error, given what the artefact computed before it.

    Args:
        path: The artefact's file.
        artifact: Its contract: ``inputs``, ``value_names``, ``value_specs``.
        stage: The quantized stage that it was made from; runs in ONNX Runtime.
        runner: Name of the artefact's runner.
        inputs: Golden inputs by name, float32 (n, ...) in NCHW or plain; the first two batches
            serve.
        options: Options of the artefact's runner.
        timeout_s: Seconds that opening, and each run, may take.
        open_with: What opens the runners.

    Returns:
        One row a value that both have, in the order of the stage's graph. Empty where the runtime
        gives outputs only. What the runtime does not give of the artefact's values (it may have
        fused them away) is verified together with what comes behind.

    Raises:
        RunnerError: a runtime refused, crashed, or took too long.
    """
    batches = zip(
        encoded_batches(inputs, artifact.inputs), encoded_batches(inputs, stage.inputs), strict=True
    )
    spec = RunnerSpec(runner, str(path), options or {}, timeout_s)
    with open_with(spec) as ours:
        try:
            runs = [
                (ours.run_all(arrays), stage_arrays)
                for (_, arrays), (_, stage_arrays) in islice(batches, _BATCHES)
            ]
        except OutputsOnlyError:
            return ()
    shared = {value: t for value, t in artifact.value_names.items() if t in runs[0][0]}
    cut = _cut_stage(stage, tuple(shared))
    found: dict[str, LayerDifference] = {}
    with opened_stage(cut, timeout_s=timeout_s, open_with=open_with) as theirs:
        for tensors, stage_arrays in runs:
            given = dict(stage_arrays)
            for value, tensor in shared.items():
                if _GIVEN + value in _input_names(cut):
                    given[_GIVEN + value] = artifact.value_specs[tensor].decode(tensors[tensor])
            values = theirs.run(given)
            for value, tensor in shared.items():
                if value in values:
                    one = found.setdefault(value, LayerDifference(artifact.value_specs[tensor]))
                    one.add(tensors[tensor], values[value])
    return layer_rows(stage, found)


def _input_names(model: Model) -> set[str]:
    return {v.name or "" for v in model.graph.graph.inputs}


def _cut_stage(stage: Model, names: tuple[str, ...]) -> Model:
    """The stage with each named value computed as an output, but read from a separate input."""
    import onnx_ir as ir

    graph = stage.graph.clone()
    wanted = set(names)
    outputs = {v.name for v in graph.graph.outputs}
    for node in list(graph.graph):
        for value in node.outputs:
            if value.name not in wanted:
                continue
            value.type = value.type or ir.TensorType(ir.DataType.FLOAT)
            uses = tuple(value.uses())
            if uses:
                given = ir.Value(name=_GIVEN + value.name, shape=value.shape, type=value.type)
                graph.graph.inputs.append(given)
                for user, index in uses:
                    user.replace_input_with(index, given)
            if value.name not in outputs:
                graph.graph.outputs.append(value)
    return stage.advanced(graph, stage.stage, ())
