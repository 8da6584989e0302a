"""`verify`: verify a bundle again from its golden vectors, on this machine's runtimes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deploykit.bundle import GOLDEN, Bundle, BundleArtifact, read_bundle
from deploykit.errors import BundleError, RunnerError, UserError
from deploykit.flow.runners import select_runners
from deploykit.golden import Golden
from deploykit.model import Model, Precision, SourceInfo, Stage
from deploykit.parity.compare import ArtifactRun, Expected, run_artifact, verify_run
from deploykit.parity.limits import check_limits, limits_with
from deploykit.parity.local_errors import measure_local_errors
from deploykit.parity.samples import first_samples
from deploykit.runners.registry import find_runner
from deploykit.target import find_target
from deploykit.tensors import FloatArray
from deploykit.verdict import LayerRow, Report, RunnerExit, Verdict


def verify(
    folder: Path | str,
    *,
    runners: Sequence[str] = (),
    cpus: Sequence[str] = (),
    limits: Sequence[str] = (),
    threads: int = 1,
    timeout_s: float = 120.0,
) -> Report:
    """Run every artefact of a bundle on the golden inputs and compare with the golden outputs.

    Neither the source nor torch is needed: the golden vectors hold what the reference and each
    stage gave when the bundle was made. A runner of the same version on the same kind of CPU must
    repeat what it gave then; on another one an int8 artefact's layers are compared, if the bundle
    keeps its stages, or else its outputs are, by how far they are from the float reference. A
    bundle that failed when it was made does not pass.

    Args:
        folder: The bundle.
        runners: Names of runners; empty for all of each target's.
        cpus: ARM64 CPUs on which the files are run too (`deploykit.runners.arm64`).
        limits: Overrides such as ``int8.max_error_lsb=3``.
        threads: Threads of each runtime.
        timeout_s: Time limit of each runtime, seconds.

    Raises:
        BundleError: no bundle, a damaged one, or one without golden vectors.
        UserError: a runner or limit that does not exist.
    """
    folder = Path(folder)
    bundle = read_bundle(folder)
    if not bundle.has_golden:
        raise BundleError(
            f"{folder} has no golden vectors: it was made with --no-verify",
            advice="convert the model again without --no-verify",
        )
    golden = Golden.from_npz(folder / GOLDEN)
    for artifact in bundle.artifacts:
        _check_golden(folder, artifact, golden)
    check_limits(limits, {artifact.precision for artifact in bundle.artifacts})
    settings = _Settings(folder, bundle, golden, tuple(limits), {"threads": threads}, timeout_s)
    verdicts = tuple(
        settings.verify(run, artifact)
        for artifact in bundle.artifacts
        for run in _runs(settings, artifact, runners, cpus)
    )
    if not verdicts:
        raise UserError(
            f"none of the runners {', '.join(runners)} runs an artefact of {folder}",
            expected="a runner of one of its targets",
        )
    return Report(
        bundle.name,
        bundle.reference,
        verdicts,
        _warnings(bundle),
        skipped=bundle.skipped,
        failed_before=tuple(_failures(bundle)),
    )


def _failures(bundle: Bundle) -> Iterator[str]:
    """The verdicts of the conversion that failed, in words."""
    for artifact in bundle.artifacts:
        for verdict in artifact.verdicts:
            if verdict.passed or verdict.runner_exit is not None:
                continue  # a runtime that died on that machine said nothing of the file
            why = verdict.error.partition("\n")[0] or ", ".join(
                dict.fromkeys(check.metric for check in verdict.checks if not check.passed)
            )
            yield (
                f"{artifact.path} on {verdict.runner_name} when the bundle was made: "
                f"{why or 'nothing was checked'}; convert the model again"
            )


def _runs(
    settings: _Settings, artifact: BundleArtifact, runners: Sequence[str], cpus: Sequence[str]
) -> Iterator[ArtifactRun]:
    """The artefact on each runner that is named, or on each that is here."""
    for one in select_runners(find_target(artifact.target).runners, runners, cpus):
        if file := one.file_to_run(artifact.path, [f.path for f in artifact.files]):
            yield run_artifact(
                settings.folder / file,
                runner=one.name,
                input_specs=artifact.inputs,
                output_specs=artifact.outputs,
                inputs=first_samples(settings.golden.inputs, one.samples),
                options=settings.options,
                timeout_s=settings.timeout_s,
            )


def _check_golden(folder: Path, artifact: BundleArtifact, golden: Golden) -> None:
    """Refuse vectors that have nothing to run an artefact on, or to hold it against."""
    wanted = [(f"input/{spec.name}", spec.name in golden.inputs) for spec in artifact.inputs]
    stage = golden.stages.get(artifact.stage, {})
    for spec in artifact.outputs:
        wanted.append((f"stage/{artifact.stage}/{spec.name}", spec.name in stage))
        wanted.append((f"reference/{spec.name}", spec.name in golden.reference))
    lacking = [entry for entry, there in wanted if not there]
    if lacking:
        raise BundleError(
            f"{folder / GOLDEN} lacks {', '.join(lacking)}, which {artifact.path} is verified by",
            advice="convert the model again",
        )


@dataclass(frozen=True)
class _Settings:
    """A bundle that is verified, and how."""

    folder: Path
    bundle: Bundle
    golden: Golden
    limits: tuple[str, ...]
    options: Mapping[str, object]
    timeout_s: float

    def verify(self, run: ArtifactRun, artifact: BundleArtifact) -> Verdict:
        """The verdict on one artefact and one runner."""
        golden, recorded = self.golden, None
        if _was_made_by(run, artifact):
            recorded = golden.runs.get(artifact.path, {}).get(run.runner_name)
        layers: tuple[LayerRow, ...] = ()
        if recorded is None and run.outputs:
            try:
                layers = self._layers(run, artifact)
            except RunnerError as failure:
                run = replace(run, error=str(failure), runner_exit=RunnerExit.of(failure))
        floats = artifact.precision == Precision.FP32.value
        expected = Expected(
            golden.stages[artifact.stage],
            golden.reference,
            recorded,
            layers,
            golden.sensitivity if floats else {},
            _proven(golden, artifact),
        )
        verdict = verify_run(
            run,
            expected.first(run.samples or 1),
            file=artifact.path,
            target=artifact.target,
            precision=artifact.precision,
            output_specs=artifact.outputs,
            output_steps=artifact.output_steps,
            limits=limits_with((*find_runner(run.runner_name).limits, *self.limits)),
        )
        return replace(verdict, bytes=artifact.bytes)

    def _layers(self, run: ArtifactRun, artifact: BundleArtifact) -> tuple[LayerRow, ...]:
        """Each layer's own error; empty where the stage is not kept, or computes in floats."""
        kept = self.bundle.stages.get(artifact.stage)
        integers = any(s.quantization for s in artifact.value_specs.values())
        if kept is None or not (integers or artifact.precision == Precision.INT8.value):
            return ()
        definition = find_runner(run.runner_name)
        file = definition.file_to_run(artifact.path, [f.path for f in artifact.files])
        return measure_local_errors(
            self.folder / file,
            artifact,
            _read_stage(self.folder / kept.path),
            runner=run.runner_name,
            inputs=self.golden.inputs,
            options=self.options,
            timeout_s=self.timeout_s,
        )


def _was_made_by(run: ArtifactRun, artifact: BundleArtifact) -> bool:
    """Whether the same runtime, version and kind of CPU ran it when the bundle was made."""
    then = next((v.runner for v in artifact.verdicts if v.runner_name == run.runner_name), None)
    now = run.info
    return (
        then is not None
        and now is not None
        and (then.runtime, then.version, then.cpu) == (now.runtime, now.version, now.cpu)
    )


def _proven(golden: Golden, artifact: BundleArtifact) -> tuple[Mapping[str, FloatArray], ...]:
    """What the runners gave that found every layer right when the bundle was made."""
    runs = golden.runs.get(artifact.path, {})
    return tuple(
        runs[verdict.runner_name]
        for verdict in artifact.verdicts
        if verdict.passed
        and verdict.runner_name in runs
        and any(check.metric == "layer_error_lsb" for check in verdict.checks)
    )


def _read_stage(path: Path) -> Model:
    import onnx_ir as ir

    try:
        return Model(ir.load(path), Stage.QUANTIZED, path.stem, SourceInfo("onnx"))
    except Exception as error:  # whatever protobuf and the graph's reader raise
        raise BundleError(
            f"the stage {path} cannot be read: {type(error).__name__}",
            advice="convert the model again",
        ) from error


def _warnings(bundle: Bundle) -> tuple[str, ...]:
    return tuple(bundle.calibration["warnings"]) if bundle.calibration else ()
