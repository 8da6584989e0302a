"""`verify`: judge a bundle again from its golden vectors, on this machine's runtimes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from deploykit.bundle import GOLDEN, Bundle, BundleArtifact, read_bundle
from deploykit.errors import BundleError, UserError
from deploykit.golden import Golden
from deploykit.parity.compare import ArtifactRun, Expected, run_artifact, verify_run
from deploykit.parity.limits import check_limits, limits_with
from deploykit.runners.registry import available_runners, find_runner
from deploykit.target import find_target
from deploykit.verdict import Report, Verdict


def verify(
    folder: Path | str,
    *,
    runners: Sequence[str] = (),
    limits: Sequence[str] = (),
    threads: int = 1,
    timeout_s: float = 120.0,
) -> Report:
    """Run every artefact of a bundle on the golden inputs and compare with the golden outputs.

    Neither the source nor torch is needed: the golden vectors hold what the reference and each
    stage gave when the bundle was made.

    Args:
        folder: The bundle.
        runners: Names of runners; empty for all of each target's.
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
    verdicts = tuple(
        _judge(run, artifact, golden, limits)
        for artifact in bundle.artifacts
        for run in _runs(folder, artifact, golden, runners, threads, timeout_s)
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
    )


def _runs(
    folder: Path,
    artifact: BundleArtifact,
    golden: Golden,
    runners: Sequence[str],
    threads: int,
    timeout_s: float,
) -> Iterator[ArtifactRun]:
    """The artefact on each runner that is named, or on each that is here."""
    own = {r.name: r for r in find_target(artifact.target).runners}
    here = available_runners(own.values())
    for one in [own[name] for name in runners if name in own] if runners else here:
        if file := one.file_to_run(artifact.path, [f.path for f in artifact.files]):
            yield run_artifact(
                folder / file,
                runner=one.name,
                input_specs=artifact.inputs,
                output_specs=artifact.outputs,
                inputs=golden.inputs,
                options={"threads": threads},
                timeout_s=timeout_s,
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
            f"{folder / GOLDEN} lacks {', '.join(lacking)}, which {artifact.path} is judged by",
            advice="convert the model again",
        )


def _judge(
    run: ArtifactRun, artifact: BundleArtifact, golden: Golden, limits: Sequence[str]
) -> Verdict:
    expected = Expected(
        golden.stages[artifact.stage],
        golden.reference,
        recorded=golden.runs.get(artifact.path, {}).get(run.runner_name),
    )
    verdict = verify_run(
        run,
        expected,
        file=artifact.path,
        target=artifact.target,
        precision=artifact.precision,
        output_specs=artifact.outputs,
        output_steps=artifact.output_steps,
        limits=limits_with((*find_runner(run.runner_name).limits, *limits)),
    )
    return replace(verdict, bytes=artifact.bytes)


def _warnings(bundle: Bundle) -> tuple[str, ...]:
    return tuple(bundle.calibration["warnings"]) if bundle.calibration else ()
