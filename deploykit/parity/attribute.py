"""Stage attribution: the first stage whose output diverges from the reference broke it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from deploykit.model import Model, Stage
from deploykit.parity.limits import Limits
from deploykit.parity.metrics import max_error_over_range, snr_db
from deploykit.parity.stages import run_stage
from deploykit.runners.base import Runner, RunnerSpec
from deploykit.runners.process import open_runner
from deploykit.tensors import FloatArray
from deploykit.verdict import StageRow


def compare_stages(
    stages: Mapping[str, Model],
    inputs: Mapping[str, FloatArray],
    reference_outputs: Mapping[str, FloatArray],
    *,
    like: Model,
    limits: Limits | None = None,
    threads: int = 1,
    timeout_s: float = 120.0,
    open_with: Callable[[RunnerSpec], Runner] = open_runner,
) -> tuple[StageRow, ...]:
    """Run every stage and compare each with the float reference, in the order given.

    Args:
        stages: Name → stage, in the order of the way; each has the reference's outputs.
        like: A stage whose inputs and outputs have their static shapes, for all of them whose
            outputs have its names; others have static shapes themselves.
        inputs: Golden inputs by name, float32 (n, ...).
        reference_outputs: What the float reference gave for them, by output name.
        limits: None for the defaults.
        threads: Threads of ONNX Runtime.
        timeout_s: Seconds that opening, and each run, may take.
        open_with: What opens the runner.

    Raises:
        RunnerError: ONNX Runtime refuses a stage.
        ParityError: outputs of other shapes, or a reference that is not finite.
    """
    chosen = limits or Limits()
    rows = []
    for label, stage in stages.items():
        same = [s.name for s in stage.outputs] == [s.name for s in like.outputs]
        outputs = run_stage(
            stage,
            inputs,
            like=like if same else stage,
            threads=threads,
            timeout_s=timeout_s,
            open_with=open_with,
        )
        for name, actual in outputs.items():
            error = max_error_over_range(actual, reference_outputs[name])
            snr = snr_db(actual, reference_outputs[name])
            diverges = _diverges(stage.stage, error, snr, chosen)
            rows.append(StageRow(label, name, error, snr, diverges))
    return tuple(rows)


def first_divergence(rows: Sequence[StageRow]) -> StageRow | None:
    """The first row that diverges: where it broke; None if none does."""
    return next((row for row in rows if row.diverges), None)


def _diverges(stage: Stage, error: float, snr: float, limits: Limits) -> bool:
    if stage is Stage.QUANTIZED:
        least = limits.int8.snr_db
        return least is not None and not snr >= least
    most = limits.fp32.reference_error_over_range
    return most is not None and not error <= most
