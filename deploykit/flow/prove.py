"""The proof of a conversion: golden vectors, and what every runner says of every artefact."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deploykit.errors import RunnerError, UserError
from deploykit.flow.make import BuiltArtifact
from deploykit.flow.runners import opened_reference
from deploykit.golden import Golden
from deploykit.model import Model, Precision, Stage
from deploykit.parity.attribute import compare_stages
from deploykit.parity.compare import ArtifactRun, Expected, run_artifact, verify_run
from deploykit.parity.golden import MOST_KEPT, make_golden_inputs
from deploykit.parity.layers import compare_layers
from deploykit.parity.limits import limits_with
from deploykit.parity.local_errors import measure_local_errors
from deploykit.parity.metrics import max_error_over_range
from deploykit.parity.samples import first_samples, run_samples
from deploykit.parity.sensitivity import measure_sensitivity
from deploykit.parity.stages import run_stage
from deploykit.passes.pipeline import advance
from deploykit.runners.registry import find_runner
from deploykit.temporary import scratch_folder
from deploykit.verdict import LayerRow, RunnerExit, StageRow, Verdict

if TYPE_CHECKING:
    from deploykit.calibration.data import CalibrationData
    from deploykit.tensors import FloatArray


@dataclass(frozen=True)
class ProofRequest:
    """How a conversion is proven.

    Attributes:
        runners: Target → names of the runners that verify its artefacts.
        limits: Overrides of limits such as ``int8.max_error_lsb=3``; those of a runner's own stand
            before them.
        samples: Number of samples; None for the default of `make_golden_inputs`. Outputs are
            compared on all of them, layers and stages on those that are kept.
        layers: Whether to compare value by value, and stage by stage.
        threads: Threads of each runtime.
        timeout_s: Time limit of each runtime, seconds.
    """

    runners: Mapping[str, tuple[str, ...]]
    limits: tuple[str, ...]
    samples: int | None
    layers: bool
    threads: int
    timeout_s: float


@dataclass(frozen=True)
class Proof:
    """What `prove` found.

    Attributes:
        golden: Some of the inputs, and what the reference and each stage gave for them.
        reference: What gave the float reference, in words.
        verdicts: Artefact's file name → verdicts.
        stages: Each stage against the reference; empty if all is well and it was not asked for.
        unproven: Artefact's file name → why ONNX Runtime does not run the quantized stage that it
            was made from: nothing can be said of such a file.
    """

    golden: Golden
    reference: str
    verdicts: Mapping[str, tuple[Verdict, ...]]
    stages: tuple[StageRow, ...] = ()
    unproven: Mapping[str, str] = field(default_factory=dict)


def prove(
    model: Model,
    fused: Model,
    made: Sequence[BuiltArtifact],
    request: ProofRequest,
    data: CalibrationData | None,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> Proof:
    """Run the reference, each stage and each artefact on the same inputs, and compare.

    Args:
        model: The exported stage; its source says what gives the float reference.
        fused: Its fused stage, whose inputs and outputs have their static shapes.
        made: The artefacts and their stages.
        request: Runners, limits, samples.
        data: Where golden inputs are taken from; None for synthetic ones.
        progress: Called with one line a step.

    Raises:
        RunnerError: the reference or the fused stage does not run; an artefact that does not is
            a verdict, and a quantized stage that does not leaves its artefact unproven.
        UserError: none of the runners that were asked for runs a file of an artefact.
    """
    inputs = make_golden_inputs(fused, data, request.samples)
    kept = first_samples(inputs, MOST_KEPT)
    reference, words = _run_reference(model, fused, inputs, request)
    progress(f"float reference: {words}")
    for item in made:
        scores = {new: reference[own] for new, own in item.softmax_of.items()}
        reference = {**reference, **{name: softmax(array) for name, array in scores.items()}}
    stages: dict[str, Mapping[str, FloatArray]] = {}
    runs: dict[str, Mapping[str, Mapping[str, FloatArray]]] = {}
    verdicts: dict[str, tuple[Verdict, ...]] = {}
    sensitivity: dict[str, float] = {}
    unproven: dict[str, str] = {}
    with scratch_folder() as folder:
        for item in made:
            if item.stage_key not in stages:
                try:
                    stages[item.stage_key] = run_stage(
                        item.stage, inputs, threads=request.threads, timeout_s=request.timeout_s
                    )
                except RunnerError as failure:
                    if item.stage_key == Stage.FUSED.value:
                        raise
                    unproven[item.path] = str(failure)
                    continue
            expected = Expected(stages[item.stage_key], reference)
            trials = _trials_of(item, folder, inputs, request)
            results = [(trial.runner, trial.run()) for trial in trials]
            runs[item.path] = {name: run.outputs for name, run in results if run.outputs}
            if item.artifact.precision is Precision.FP32:
                measured = set(sensitivity) >= {s.name for s in item.stage.outputs}
                if not measured and any(_is_off(run, expected) for _, run in results):
                    sensitivity |= measure_sensitivity(
                        item.stage,
                        kept,
                        first_samples(stages[item.stage_key], MOST_KEPT),
                        threads=request.threads,
                        timeout_s=request.timeout_s,
                    )
                expected = replace(expected, sensitivity=sensitivity)
            verdicts[item.path] = tuple(
                trial.verify(run, expected) for trial, (_, run) in zip(trials, results, strict=True)
            )
            progress(f"ran {item.path} on {', '.join(name for name, _ in results)}")
    rows: tuple[StageRow, ...] = ()
    # A runner that died says nothing of the stages.
    verified = [v for found in verdicts.values() for v in found if v.runner_exit is None]
    if request.layers or not all(v.passed for v in verified):
        rows = compare_stages(
            _way_of(model, fused, [item for item in made if item.path not in unproven]),
            kept,
            first_samples(reference, MOST_KEPT),
            like=fused,
            limits=limits_with(request.limits),
            threads=request.threads,
            timeout_s=request.timeout_s,
        )
    golden = Golden(inputs, reference, stages, runs, sensitivity).first(MOST_KEPT)
    return Proof(golden, words, verdicts, rows, unproven)


def softmax(scores: FloatArray) -> FloatArray:
    """Softmax over axis 1 of scores (n, classes), float32."""
    powers = np.exp(scores.astype(np.float64) - scores.max(axis=1, keepdims=True))
    shares: FloatArray = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares


#: Above this error over the range, rounding alone is measured: a quarter of the default limit.
_WORTH_MEASURING = 5e-6


def _is_off(run: ArtifactRun, expected: Expected) -> bool:
    sides = [side for side in (expected.stage, expected.reference) if side is not None]
    return any(
        output.shape == side[name].shape
        and max_error_over_range(output, side[name]) > _WORTH_MEASURING
        for name, output in run.outputs.items()
        for side in sides
    )


def _way_of(model: Model, fused: Model, made: Sequence[BuiltArtifact]) -> dict[str, Model]:
    """Name → stage, from the exported one on."""
    way = {Stage.EXPORTED.value: model, Stage.SIMPLIFIED.value: advance(model, Stage.SIMPLIFIED)}
    return way | {Stage.FUSED.value: fused} | {item.stage_key: item.stage for item in made}


def _run_reference(
    model: Model, fused: Model, inputs: Mapping[str, FloatArray], request: ProofRequest
) -> tuple[Mapping[str, FloatArray], str]:
    batch = fused.inputs[0].shape[0]
    with opened_reference(
        model, batch=batch, threads=request.threads, timeout_s=request.timeout_s
    ) as runner:
        outputs = run_samples(runner, inputs, fused.inputs, fused.outputs)
        return outputs, f"{runner.info.runtime} {runner.info.version}"


def _trials_of(
    item: BuiltArtifact, folder: Path, inputs: Mapping[str, FloatArray], request: ProofRequest
) -> list[_Trial]:
    """The artefact, written into ``folder``, on each runner that runs a file of it."""
    for path, content in item.files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    names = request.runners[item.artifact.target]
    files = {name: find_runner(name).file_to_run(item.path, item.files) for name in names}
    trials = [
        _Trial(item, folder / file, name, inputs, request) for name, file in files.items() if file
    ]
    if names and not trials:
        raise UserError(
            f"{item.path} has no file that {', '.join(names)} runs",
            expected=f"a runner of one of {', '.join(item.files)}",
        )
    return trials


@dataclass(frozen=True)
class _Trial:
    """One artefact on one runner."""

    item: BuiltArtifact
    path: Path
    runner: str
    inputs: Mapping[str, FloatArray]
    request: ProofRequest

    def run(self) -> ArtifactRun:
        """What the artefact gives for the golden inputs."""
        return run_artifact(
            self.path,
            runner=self.runner,
            input_specs=self.item.artifact.inputs,
            output_specs=self.item.artifact.outputs,
            inputs=first_samples(self.inputs, find_runner(self.runner).samples),
            options=self._options,
            timeout_s=self.request.timeout_s,
        )

    def verify(self, run: ArtifactRun, expected: Expected) -> Verdict:
        """The verdict; an int8 artefact's layers are verified one by one."""
        artifact = self.item.artifact
        layers: tuple[LayerRow, ...] = ()
        integers = any(s.quantization for s in artifact.value_specs.values())
        if run.outputs and (integers or artifact.precision is Precision.INT8):
            try:
                layers = self._measure(measure_local_errors)
            except RunnerError as failure:
                run = replace(run, error=str(failure), runner_exit=RunnerExit.of(failure))
        verdict = verify_run(
            run,
            replace(expected, layers=layers).first(run.samples or 1),
            file=self.item.path,
            target=artifact.target,
            precision=artifact.precision,
            output_specs=artifact.outputs,
            output_steps=artifact.output_steps,
            limits=limits_with((*find_runner(self.runner).limits, *self.request.limits)),
        )
        if not self.request.layers or verdict.error or not run.outputs:
            return verdict
        try:
            return replace(verdict, layers=self._measure(compare_layers))
        except RunnerError as failure:
            return replace(verdict, error=str(failure), runner_exit=RunnerExit.of(failure))

    def _measure(self, measure: Callable[..., tuple[LayerRow, ...]]) -> tuple[LayerRow, ...]:
        return measure(
            self.path,
            self.item.artifact,
            self.item.stage,
            runner=self.runner,
            inputs=first_samples(
                first_samples(self.inputs, MOST_KEPT), find_runner(self.runner).samples
            ),
            options=self._options,
            timeout_s=self.request.timeout_s,
        )

    @property
    def _options(self) -> dict[str, object]:
        return {"threads": self.request.threads}
