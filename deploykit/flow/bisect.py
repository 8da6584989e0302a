"""`bisect`: the first layer of an artefact that a runtime computes wrongly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploykit.bundle import GOLDEN, Bundle, BundleArtifact, read_bundle
from deploykit.errors import UserError
from deploykit.golden import Golden
from deploykit.parity.bisect import Bisection, bisect_file, write_layer
from deploykit.parity.samples import encoded_batches, first_samples
from deploykit.runners.base import Runner, RunnerSpec
from deploykit.runners.process import open_runner
from deploykit.runners.registry import find_runner
from deploykit.target import find_target


@dataclass(frozen=True)
class BisectedArtifact:
    """What was found of one artefact.

    Attributes:
        path: Its path in the bundle.
        runner: The runtime in question.
        trusted: The runtime that it was held against.
        found: The result.
    """

    path: str
    runner: str
    trusted: str
    found: Bisection


def bisect(
    folder: Path | str,
    runner: str,
    *,
    open_with: Callable[[RunnerSpec], Runner] = open_runner,
    timeout_s: float = 120.0,
) -> tuple[BisectedArtifact, ...]:
    """Bisect every artefact of a bundle that a runner runs, on its first golden input.

    The first runner of the target is the one that is trusted.

    Args:
        folder: The bundle.
        runner: Name of the runner in question.
        open_with: What opens runners.
        timeout_s: Seconds that opening, and each run, may take.

    Raises:
        BundleError: no bundle, or one without golden vectors.
        UserError: no such runner, it runs no artefact here, it is the trusted one, or its target
            cannot cut a file into layers.
        RunnerError: a runtime refused, crashed, or took too long.
    """
    folder = Path(folder)
    bundle = read_bundle(folder)
    target = find_target(find_runner(runner).runs)
    trusted = target.runners[0].name
    if trusted == runner:
        raise UserError(f"the runner {runner!r} is what others are held against")
    if not target.layer_cutter:
        raise UserError(
            f"files of the target {target.name} cannot be cut into layers",
            expected="a target that can: ncnn",
            advice="deploykit convert ... --layers tells which value diverges",
        )
    artifacts = _artifacts_of(bundle, target.name)
    golden = Golden.from_npz(folder / GOLDEN)

    def opens(name: str) -> Callable[[Path], Runner]:
        return lambda path: open_with(RunnerSpec(name, str(path), {}, timeout_s))

    results = []
    for artifact in artifacts:
        path = folder / artifact.path
        one = first_samples(golden.inputs, 1)
        arrays = next(iter(encoded_batches(one, artifact.inputs)))[1]
        found = bisect_file(
            path,
            target.cut_layers(path),
            arrays,
            suspected=opens(runner),
            trusted=opens(trusted),
        )
        results.append(BisectedArtifact(artifact.path, runner, trusted, found))
    return tuple(results)


def write_wrong_layers(results: Sequence[BisectedArtifact], folder: Path) -> dict[str, str]:
    """Write each layer that is wrong as a file of its own.

    Returns:
        Artefact's path → the file.

    Raises:
        UserError: the folder cannot be written.
    """
    written = {}
    try:
        for result in results:
            if (cut := result.found.cut) is not None:
                folder.mkdir(parents=True, exist_ok=True)
                stem = f"{Path(result.path).stem}.layer"
                written[result.path] = str(write_layer(folder, stem, cut.files))
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}") from error
    return written


def _artifacts_of(bundle: Bundle, target: str) -> list[BundleArtifact]:
    found = [a for a in bundle.artifacts if a.target == target]
    if not found:
        raise UserError(
            f"the bundle has no artefact of {target}",
            expected=f"one of {', '.join(dict.fromkeys(a.target for a in bundle.artifacts))}",
        )
    if not bundle.has_golden:
        raise UserError("the bundle has no golden inputs", advice="convert without --no-verify")
    return found
