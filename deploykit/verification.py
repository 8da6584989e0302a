"""`verify`: judge a bundle again from its golden vectors, on this machine's runtimes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from deploykit.bundle import GOLDEN, Bundle, BundleArtifact, Golden, read_bundle
from deploykit.errors import BundleError, UserError
from deploykit.parity.compare import Expected, judge_run, run_artifact
from deploykit.parity.limits import Limits, limits_with
from deploykit.report.model import Report, Verdict
from deploykit.runners.registry import available_runners
from deploykit.target import find_target


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
    chosen = limits_with(limits)
    verdicts: list[Verdict] = []
    for artifact in bundle.artifacts:
        definitions = find_target(artifact.target).runners
        own = [r.name for r in definitions]
        here = [r.name for r in available_runners(definitions)]
        names = [n for n in runners if n in own] if runners else here
        for name in names:
            verdicts.append(
                _judge(folder, artifact, golden, name, chosen, threads=threads, timeout_s=timeout_s)
            )
    if not verdicts:
        raise UserError(
            f"none of the runners {', '.join(runners)} runs an artefact of {folder}",
            expected="a runner of one of its targets",
        )
    return Report(bundle.name, bundle.reference, tuple(verdicts), _warnings(bundle))


def _judge(
    folder: Path,
    artifact: BundleArtifact,
    golden: Golden,
    runner: str,
    limits: Limits,
    *,
    threads: int,
    timeout_s: float,
) -> Verdict:
    run = run_artifact(
        folder / artifact.path,
        runner=runner,
        input_specs=artifact.inputs,
        output_specs=artifact.outputs,
        inputs=golden.inputs,
        options={"threads": threads},
        timeout_s=timeout_s,
    )
    expected = Expected(
        golden.stages[artifact.stage],
        golden.reference,
        recorded=golden.runs.get(artifact.path, {}).get(runner),
    )
    verdict = judge_run(
        run,
        expected,
        file=artifact.path,
        target=artifact.target,
        precision=artifact.precision,
        output_specs=artifact.outputs,
        output_steps=artifact.output_steps,
        limits=limits,
    )
    return replace(verdict, bytes=artifact.bytes)


def _warnings(bundle: Bundle) -> tuple[str, ...]:
    return tuple(bundle.calibration["warnings"]) if bundle.calibration else ()
