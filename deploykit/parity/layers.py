"""Value by value: every tensor of an artefact against the same value of its stage."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from deploykit.graph.ops import QDQ_OPS
from deploykit.graph.provenance import module_path
from deploykit.model import Model
from deploykit.parity.metrics import error_over_range, ratio_db, whole_steps
from deploykit.parity.samples import encoded_batches
from deploykit.parity.stages import opened_stage
from deploykit.runners.base import Runner, RunnerSpec
from deploykit.runners.process import OutputsOnlyError, open_runner
from deploykit.target import Artifact
from deploykit.tensors import Array, FloatArray, TensorSpec
from deploykit.verdict import LayerRow

#: Every value of a sample is held at once; a few samples find what is broken.
_BATCHES = 4


def describe_values(model: Model) -> dict[str, tuple[str, str]]:
    """Value name → (module path, op type) of the node that makes it, in graph order.

    The values around QuantizeLinear and DequantizeLinear are told by the node whose result they
    carry.
    """
    described: dict[str, tuple[str, str]] = {}
    for node in model.graph.graph:
        origin = node
        while origin.op_type in QDQ_OPS and origin.inputs[0] is not None:
            producer = origin.inputs[0].producer()
            if producer is None:
                break
            origin = producer
        for value in node.outputs:
            if value.name:
                described[value.name] = (module_path(origin), origin.op_type)
    return described


@dataclass
class LayerDifference:
    """What is known so far of one value's difference, over the batches seen."""

    spec: TensorSpec
    low: float = math.inf
    high: float = -math.inf
    largest: float = 0.0
    signal: float = 0.0
    noise: float = 0.0
    steps: float = 0.0
    comparable: bool = True

    def add(self, raw: Array, expected: Array) -> None:
        """Another batch: the artefact's own array, and the stage's in NCHW or plain.

        Elements that are infinite or NaN in the stage (a mask, an overflow that a later layer
        bounds) have no difference: what becomes of them shows in the layers behind.
        """
        actual = self.spec.decode(raw)
        if actual.shape != expected.shape or expected.size == 0:
            self.comparable = False
            return
        finite = np.isfinite(expected)
        if not finite.any():
            return
        reference = expected[finite].astype(np.float64)
        difference = np.abs(actual[finite].astype(np.float64) - reference)
        self.low = min(self.low, float(reference.min()))
        self.high = max(self.high, float(reference.max()))
        # NaN would lose every comparison; as an infinite difference it is the worst there is.
        worst = float(np.where(np.isnan(difference), np.inf, difference).max())
        self.largest = max(self.largest, worst)
        self.signal += float(np.square(reference).sum())
        self.noise = (
            self.noise + float(np.square(difference).sum()) if math.isfinite(worst) else math.inf
        )
        if self._scale is not None:
            self.steps = max(self.steps, worst / self._scale)

    @property
    def _scale(self) -> float | None:
        """Size of a step, of a tensor that has one."""
        params = self.spec.quantization
        if params is None or params.per_channel:
            return None
        return float(np.float32(params.scale[0]))

    @property
    def width(self) -> float:
        """The stage's range, from or to zero at least, as integers would cover it."""
        return max(self.high, 0.0) - min(self.low, 0.0) if self.low <= self.high else 0.0

    def row(self, value: str, module: str, op_type: str, usual_width: float = 0.0) -> LayerRow:
        """The figures; NaN where the shapes differ.

        Args:
            value: Name of the value.
            module: Module path of the node that makes it.
            op_type: Of that node.
            usual_width: What the error of a value that is zero throughout is divided by.
        """
        if not self.comparable:
            return LayerRow(value, module, op_type, math.nan, math.nan, None)
        return LayerRow(
            value,
            module,
            op_type,
            error_over_range(self.largest, 0.0, self.width or usual_width),
            ratio_db(self.signal, self.noise),
            whole_steps(self.steps) if self._scale is not None else None,
        )


def layer_rows(stage: Model, found: Mapping[str, LayerDifference]) -> tuple[LayerRow, ...]:
    """A row for each value that was compared, in the order of the stage's graph."""
    described = describe_values(stage)
    widths = [one.width for one in found.values() if one.width]
    usual = float(np.median(widths)) if widths else 0.0
    return tuple(found[v].row(v, *described[v], usual) for v in described if v in found)


def compare_layers(
    path: Path,
    artifact: Artifact,
    stage: Model,
    *,
    runner: str,
    inputs: Mapping[str, FloatArray],
    options: Mapping[str, object] | None = None,
    timeout_s: float = 120.0,
    open_with: Callable[[RunnerSpec], Runner] = open_runner,
) -> tuple[LayerRow, ...]:
    """Compare every value that both the artefact's runtime and the stage can give.

    Args:
        path: The artefact's file.
        artifact: Its contract: ``inputs``, ``value_names``, ``value_specs``.
        stage: The stage that it was made from; runs in ONNX Runtime.
        runner: Name of the artefact's runner.
        inputs: Golden inputs by name, float32 (n, ...) in NCHW or plain; the first four batches
            serve.
        options: Options of the artefact's runner.
        timeout_s: Seconds that opening, and each run, may take.
        open_with: What opens the runners.

    Returns:
        One row a value, in the order of the stage's graph; a value whose shapes differ has NaN
        for its figures. Empty where the runtime gives outputs only.

    Raises:
        RunnerError: a runtime refused, crashed, or took too long.
        ContractError: inputs that do not fit.
    """
    found: dict[str, LayerDifference] = {}
    spec = RunnerSpec(runner, str(path), options or {}, timeout_s)
    with (
        open_with(spec) as ours,
        opened_stage(stage, timeout_s=timeout_s, open_with=open_with) as theirs,
    ):
        batches = zip(
            encoded_batches(inputs, artifact.inputs),
            encoded_batches(inputs, stage.inputs),
            strict=True,
        )
        for (_, arrays), (_, stage_arrays) in islice(batches, _BATCHES):
            try:
                tensors = ours.run_all(arrays)
            except OutputsOnlyError:
                return ()
            values = theirs.run_all(stage_arrays)
            for value, tensor in artifact.value_names.items():
                if value in values and tensor in tensors:
                    one = found.setdefault(value, LayerDifference(artifact.value_specs[tensor]))
                    one.add(tensors[tensor], values[value])
    return layer_rows(stage, found)
