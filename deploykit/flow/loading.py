"""No file is written that its own runtime does not load, whether or not it is verified."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from deploykit.errors import (
    MissingDependencyError,
    RunnerError,
    RunnerTimeoutError,
    UnsupportedModelError,
)
from deploykit.flow.make import BuiltArtifact
from deploykit.runners.base import Runner, RunnerSpec
from deploykit.runners.process import open_runner
from deploykit.runners.registry import available_runners, find_runner
from deploykit.target import find_target
from deploykit.temporary import scratch_folder
from deploykit.verdict import SkippedTarget, Verdict


def split_loadable(
    made: Sequence[BuiltArtifact],
    verdicts: Mapping[str, Sequence[Verdict]] | None,
    *,
    timeout_s: float = 120.0,
    open_with: Callable[[RunnerSpec], Runner] = open_runner,
) -> tuple[list[BuiltArtifact], list[SkippedTarget]]:
    """The artefacts that load, and those that do not, as refusals.

    A runtime that crashes or hangs while it runs is a verdict; one that says of a file that it
    cannot be loaded has found a file that is no use to anybody.

    Args:
        made: The artefacts.
        verdicts: Artefact's path → what its runners said; None if nothing was run: then each file
            is loaded once here, in the first of its target's runtimes that is installed.
        timeout_s: Seconds that loading may take.
        open_with: What opens a runner.

    Raises:
        UnsupportedModelError: no artefact is left.
    """
    kept: list[BuiltArtifact] = []
    skipped: list[SkippedTarget] = []
    for item in made:
        if verdicts is None:
            reason = _why_not_loaded(item, timeout_s, open_with)
        else:
            # What was asked for besides (an old runtime, a microcontroller's) decides nothing.
            found = [
                v for v in verdicts.get(item.path, ()) if not find_runner(v.runner_name).on_request
            ]
            refused = [v for v in found if v.runner is None and v.error and v.runner_exit is None]
            reason = refused[0].error if found and len(refused) == len(found) else ""
        if not reason:
            kept.append(item)
            continue
        target, precision = item.artifact.target, item.artifact.precision.value
        words = (
            f"{item.path} was made, but its own runtime does not load it, so it is not written: "
            f"{reason}\n  what to do: this is a defect of the target: report it with the model"
        )
        skipped.append(SkippedTarget(target, precision, words, refused=True))
    if made and not kept:
        raise UnsupportedModelError("\n".join(dict.fromkeys(s.reason for s in skipped)))
    return kept, skipped


def _why_not_loaded(
    item: BuiltArtifact, timeout_s: float, open_with: Callable[[RunnerSpec], Runner]
) -> str:
    with scratch_folder() as folder:
        for path, content in item.files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        for runner in available_runners(find_target(item.artifact.target).runners):
            file = runner.file_to_run(item.path, item.files)
            if not file or runner.on_request:
                continue
            spec = RunnerSpec(runner.name, str(folder / file), {"threads": 1}, timeout_s)
            try:
                with open_with(spec):
                    return ""
            except MissingDependencyError:
                continue  # writing alone needs no runtime
            except RunnerTimeoutError:
                return ""  # it may be slow here; that says nothing of the file
            except RunnerError as error:
                return str(error)
    return ""
