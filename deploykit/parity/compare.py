"""One artefact, one runner, two questions.

Conversion error: does the artefact do what the stage does that it was made from? Quantization
noise: how far is it from the float reference? They are kept apart because they have other causes
and other cures: a bug of ours or of a runtime, and the model or its calibration.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from deploykit.errors import ParityError, RunnerError
from deploykit.model import Precision
from deploykit.parity import metrics
from deploykit.parity.limits import Limits, PrecisionLimits, limit_with_rounding
from deploykit.parity.noise import noise_checks
from deploykit.parity.samples import count_samples, first_samples, run_samples
from deploykit.runners.base import Runner, RunnerInfo, RunnerSpec
from deploykit.runners.compiled import cpu_op_shares
from deploykit.runners.process import open_runner
from deploykit.tensors import FloatArray, QuantParams, TensorSpec
from deploykit.verdict import Check, LayerRow, Question, RunnerExit, Verdict


@dataclass(frozen=True)
class ArtifactRun:
    """What one runner gave for the golden inputs.

    Attributes:
        runner_name: The runner's name.
        info: What ran; None if it could not be opened.
        outputs: Output name → float32 (n, ...) in NCHW or plain; empty if it failed.
        samples: Number of golden inputs.
        error: The failure in words; empty if it ran.
        runner_exit: How its process ended; None if it answered.
    """

    runner_name: str
    info: RunnerInfo | None
    outputs: Mapping[str, FloatArray]
    samples: int
    error: str = ""
    runner_exit: RunnerExit | None = None


@dataclass(frozen=True)
class Expected:
    """What an artefact's outputs are held against, each by output name, float32 (n, ...).

    Attributes:
        stage: What the stage gave that it was made from; None not to ask.
        reference: What the float reference gave; None not to ask.
        recorded: What the same file gave on the same runner, of the same version, on the same kind
            of CPU; None if there is no such record.
        layers: Each layer's own error (`deploykit.parity.local_errors`); empty if the runtime
            gives outputs only, or none was measured.
        sensitivity: Of a float stage: output name → how far rounding alone moves it
            (`deploykit.parity.sensitivity`); empty if that was not measured.
        proven: What runners gave on which every layer of this file was right: a runtime's
            arithmetic (float16 between integer layers) may cost some of the stage's accuracy.
    """

    stage: Mapping[str, FloatArray] | None
    reference: Mapping[str, FloatArray] | None
    recorded: Mapping[str, FloatArray] | None = None
    layers: tuple[LayerRow, ...] = ()
    sensitivity: Mapping[str, float] = field(default_factory=dict)
    proven: tuple[Mapping[str, FloatArray], ...] = ()

    def first(self, count: int) -> Expected:
        """The same of the first ``count`` samples: a slow runner is given fewer."""
        stage, reference, recorded = (
            None if arrays is None else first_samples(arrays, count)
            for arrays in (self.stage, self.reference, self.recorded)
        )
        proven = tuple(first_samples(arrays, count) for arrays in self.proven)
        return replace(self, stage=stage, reference=reference, recorded=recorded, proven=proven)


def run_artifact(
    path: Path,
    *,
    runner: str,
    input_specs: Sequence[TensorSpec],
    output_specs: Sequence[TensorSpec],
    inputs: Mapping[str, FloatArray],
    options: Mapping[str, object] | None = None,
    timeout_s: float = 120.0,
    open_with: Callable[[RunnerSpec], Runner] = open_runner,
) -> ArtifactRun:
    """Run an artefact on the golden inputs.

    Args:
        path: The artefact's file.
        runner: Name of the runner.
        input_specs: The artefact's inputs, in its own layouts and dtypes.
        output_specs: Its outputs; their names are those of the stage's outputs.
        inputs: Golden inputs by name, float32 (n, ...) in NCHW or plain.
        options: Options of the runner.
        timeout_s: Seconds that opening, and each run, may take.
        open_with: What opens the runner.

    Returns:
        What it gave; of a compiler, which runs nothing, what it told. A runtime that refuses,
        crashes, hangs or gives other outputs than the artefact has, is a run with an ``error``.

    Raises:
        UserError: an unknown runner, a missing package, or inputs that do not fit.
    """
    samples = count_samples(inputs)
    info: RunnerInfo | None = None
    try:
        with open_with(RunnerSpec(runner, str(path), options or {}, timeout_s)) as opened:
            info = opened.info
            if cpu_op_shares(info):
                return ArtifactRun(runner, info, {}, 0)
            outputs = run_samples(opened, inputs, input_specs, output_specs)
    except (RunnerError, ParityError) as failure:
        return ArtifactRun(runner, info, {}, samples, str(failure), RunnerExit.of(failure))
    return ArtifactRun(runner, info, outputs, samples)


def verify_run(
    run: ArtifactRun,
    expected: Expected,
    *,
    file: str,
    target: str,
    precision: Precision | str,
    output_specs: Sequence[TensorSpec],
    output_steps: Mapping[str, QuantParams] | None = None,
    limits: Limits | None = None,
) -> Verdict:
    """Verify what a runner gave.

    Args:
        run: What it gave.
        expected: What that is held against.
        file: The artefact's file name, for the verdict.
        target: E.g. ``tflite``.
        precision: Whose limits apply.
        output_specs: The artefact's outputs.
        output_steps: Output name → the integer quantization behind it, also where the output
            itself is float. An output's own quantization serves where it is not listed.
        limits: None for the defaults.

    Raises:
        ParityError: the reference's outputs cannot be compared with: they are not finite; or
            one of the two lacks an output. A stage that is not finite where the reference is, is
            our own defect: the verdict's ``error`` says so.
        ValueError: neither question is asked.
    """
    if expected.stage is None and expected.reference is None:
        raise ValueError("neither the stage's nor the reference's outputs were given")
    if shares := cpu_op_shares(run.info):
        checks = compiled_checks(shares, (limits or Limits()).int8)
        return _verdict_of(run, checks, file, target, precision)
    _check_outputs("stage", expected.stage, output_specs)
    _check_outputs("reference", expected.reference, output_specs)
    _check_finite("reference", expected.reference, output_specs)
    checks = []
    error = run.error or _defect_of_stage(expected, output_specs)
    if not error:
        verify = _Judge((limits or Limits()).of(precision), output_steps or {}, expected)
        error = _not_finite(run.outputs)
        checks += verify.layers()
        try:
            for spec in output_specs:
                checks += verify.conversion(spec, run.outputs)
                checks += verify.quantization(spec, run.outputs)
        except ParityError as failure:
            checks, error = [], str(failure)
    return _verdict_of(replace(run, error=error), checks, file, target, precision)


def compiled_checks(shares: Mapping[str, float], limits: PrecisionLimits) -> list[Check]:
    """What a compiler for an NPU leaves to the CPU, of each piece of hardware.

    Args:
        shares: Hardware → share of operators, 0..1.
        limits: Those of int8, which alone runs there.
    """
    return [
        Check(
            Question.CONVERSION,
            name,
            "cpu_op_share",
            share,
            limits.cpu_op_share,
            at_most=True,
            warn_limit=limits.warn_cpu_op_share,
        )
        for name, share in shares.items()
    ]


def _verdict_of(
    run: ArtifactRun, checks: Sequence[Check], file: str, target: str, precision: Precision | str
) -> Verdict:
    return Verdict(
        target=target,
        precision=Precision(precision).value,
        path=file,
        runner_name=run.runner_name,
        runner=run.info,
        checks=tuple(checks),
        samples=run.samples,
        error=run.error,
        runner_exit=run.runner_exit,
    )


def _not_finite(actual: Mapping[str, FloatArray]) -> str:
    """What is not a number, in words: it fails the verdict even where no limit is set."""
    found = [
        f"output {name!r} holds {bad} of {array.size} elements that are NaN or infinity"
        for name, array in actual.items()
        if (bad := int(array.size - np.isfinite(array).sum()))
    ]
    return "; ".join(found)


def _check_outputs(
    what: str, outputs: Mapping[str, FloatArray] | None, specs: Sequence[TensorSpec]
) -> None:
    """Refuse a side that lacks an output: that is not the artefact's fault."""
    for spec in specs:
        if outputs is not None and spec.name not in outputs:
            raise ParityError(
                f"the {what} gave outputs {', '.join(outputs) or '(none)'}",
                expected=f"also {spec.name!r}, which the artefact has",
            )


def _check_finite(
    what: str, outputs: Mapping[str, FloatArray] | None, specs: Sequence[TensorSpec]
) -> None:
    """Refuse a side that nothing can be compared with."""
    if outputs is None:
        return
    for spec in specs:
        try:
            metrics.max_error_over_range(outputs[spec.name], outputs[spec.name])
        except ParityError as error:
            raise ParityError(
                f"output {spec.name!r} of the {what}: {error.found}", advice=error.advice
            ) from error


def _defect_of_stage(expected: Expected, specs: Sequence[TensorSpec]) -> str:
    """In words: the stage, which is ours, is not finite though the reference is; or empty."""
    try:
        _check_finite("stage", expected.stage, specs)
    except ParityError as error:
        if expected.reference is None:
            raise
        return (
            f"{error.found}, though the float reference is finite: a defect of this conversion, "
            "not of the source model"
        )
    return ""


@dataclass(frozen=True)
class _Judge:
    """Makes the checks of one artefact."""

    limits: PrecisionLimits
    steps: Mapping[str, QuantParams]
    expected: Expected

    def layers(self) -> list[Check]:
        """The layer that is furthest off by itself: of those with steps, and of those without."""
        checks = []
        for metric, off in (
            ("layer_error_lsb", _steps_off),
            ("layer_error_over_range", _share_off),
        ):
            measured = {r.value: m for r in self.expected.layers if (m := off(r)) is not None}
            if measured:
                worst = max(measured, key=lambda value: measured[value])
                limit = getattr(self.limits, metric)
                question = Question.CONVERSION
                checks.append(Check(question, worst, metric, measured[worst], limit, at_most=True))
        return checks

    def conversion(self, spec: TensorSpec, actual: Mapping[str, FloatArray]) -> list[Check]:
        """The output against the stage's, and against what the runner gave before."""
        if self.expected.stage is None:
            return []
        question, limits = Question.CONVERSION, self.limits
        a, e = actual[spec.name], self.expected.stage[spec.name]
        error = metrics.max_error_over_range(a, e)
        params = self.steps.get(spec.name, spec.quantization)
        if params is None or limits.layer_error_lsb is None:
            return self._without_steps(spec, a, error)
        steps = metrics.max_error_lsb(a, e, params)
        checks = [_at_most(question, spec, "max_error_over_range", error, None)]
        if self.expected.layers:
            checks.append(
                _at_most(question, spec, "output_error_lsb", steps, limits.output_error_lsb)
            )
        elif self.expected.recorded is not None:
            again = metrics.max_error_lsb(a, self.expected.recorded[spec.name], params)
            checks.append(
                _at_most(question, spec, "repeat_error_lsb", again, limits.repeat_error_lsb)
            )
            checks.append(
                _at_most(question, spec, "output_error_lsb", steps, limits.output_error_lsb)
            )
        elif self.expected.reference is None:
            limit = limits.layer_error_lsb if limits.max_error_lsb is None else limits.max_error_lsb
            checks.append(_at_most(question, spec, "max_error_lsb", steps, limit))
        else:
            checks.append(_at_most(question, spec, "max_error_lsb", steps, limits.max_error_lsb))
            checks += self._losses(spec, a)
        return checks

    def _losses(self, spec: TensorSpec, actual: FloatArray) -> list[Check]:
        """By outputs alone: how much further from the float reference than the stage is."""
        stage, reference = self.expected.stage, self.expected.reference
        if stage is None or reference is None:
            return []
        question, limits = Question.CONVERSION, self.limits
        wanted = reference[spec.name]
        right = [outputs[spec.name] for outputs in (stage, *self.expected.proven)]
        least = min(metrics.snr_db(outputs, wanted) for outputs in right)
        found = metrics.snr_db(actual, wanted)
        loss = 0.0 if found >= least else least - found
        checks = [_at_most(question, spec, "snr_loss_db", loss, limits.snr_loss_db)]
        if wanted.ndim == 2 and wanted.shape[1] > 1:
            agreement = min(metrics.top1_agreement(outputs, wanted) for outputs in right)
            loss = max(0.0, agreement - metrics.top1_agreement(actual, wanted))
            limit = limits.top1_loss
            if limit is not None:  # of a few samples, one is more than a point
                limit = max(limit, 1 / len(wanted) + 1e-9)
            checks.append(_at_most(question, spec, "top1_loss", loss, limit))
        return checks

    def _without_steps(self, spec: TensorSpec, actual: FloatArray, error: float) -> list[Check]:
        question, limits = Question.CONVERSION, self.limits
        if self.expected.layers:
            limit = limits.output_error_over_range
            return [_at_most(question, spec, "output_error_over_range", error, limit)]
        if self.expected.recorded is None or limits.repeat_error_over_range is None:
            limit = self._with_rounding(spec, "max_error_over_range")
            if limits.snr_loss_db is not None and self.expected.reference is not None:
                told = _at_most(question, spec, "max_error_over_range", error, limit)
                return [told, *self._losses(spec, actual)]
            return [_at_most(question, spec, "max_error_over_range", error, limit)]
        again = metrics.max_error_over_range(actual, self.expected.recorded[spec.name])
        limit = limits.repeat_error_over_range
        return [
            _at_most(question, spec, "repeat_error_over_range", again, limit),
            _at_most(
                question, spec, "output_error_over_range", error, limits.output_error_over_range
            ),
        ]

    def _with_rounding(self, spec: TensorSpec, name: str) -> float | None:
        sensitivity = self.expected.sensitivity.get(spec.name, 0.0)
        return limit_with_rounding(getattr(self.limits, name), name, sensitivity)

    def quantization(self, spec: TensorSpec, actual: Mapping[str, FloatArray]) -> list[Check]:
        """The output against the float reference's."""
        if self.expected.reference is None:
            return []
        most = self._with_rounding(spec, "reference_error_over_range")
        params = self.steps.get(spec.name, spec.quantization)
        step = float(np.max(params.scale)) if params is not None else 0.0
        outputs = actual[spec.name], self.expected.reference[spec.name]
        return noise_checks(spec.name, *outputs, self.limits, most=most, step=step)


def _at_most(
    question: Question, spec: TensorSpec, metric: str, measured: float, limit: float | None
) -> Check:
    return Check(question, spec.name, metric, measured, limit, at_most=True)


def _steps_off(row: LayerRow) -> float | None:
    """A layer's error in steps, infinite where the shapes differ; None for one without steps."""
    if math.isnan(row.max_error_over_range):
        return math.inf
    return row.max_error_lsb


def _share_off(row: LayerRow) -> float | None:
    """A layer's error over its range; None for one with steps, or whose shapes differ."""
    if math.isnan(row.max_error_over_range) or row.max_error_lsb is not None:
        return None
    return row.max_error_over_range
