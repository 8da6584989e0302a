"""What runs: which runners an artefact is verified on, and what gives the float reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from deploykit.model import Model
from deploykit.parity.stages import STAGE_RUNNER, opened_stage
from deploykit.runners.arm64 import SUFFIX as ARM64_SUFFIX
from deploykit.runners.arm64 import names_on_cpus
from deploykit.runners.base import Runner, RunnerDefinition, RunnerSpec
from deploykit.runners.process import open_runner
from deploykit.runners.registry import available_runners, named_runners


def select_runners(
    definitions: Sequence[RunnerDefinition], names: Sequence[str], cpus: Sequence[str]
) -> tuple[RunnerDefinition, ...]:
    """The runners of a target that verify.

    Args:
        definitions: All that it has.
        names: Those that the user wants; empty for all that are here, but those on request.
        cpus: ARM64 CPUs: the runners on them are added, or, where ARM64 runners are among
            ``names``, these are what runs on them.
    """
    if not names:
        usual = available_runners(definitions)
        return (*usual, *named_runners(definitions, names_on_cpus(definitions, cpus)))
    named = named_runners(definitions, names)
    if not cpus:
        return named
    arm = [d for d in named if d.name.endswith(ARM64_SUFFIX)]
    others = [d for d in named if d not in arm]
    emulated = named_runners(definitions, names_on_cpus(arm or definitions, cpus))
    return (*others, *emulated)


@contextmanager
def opened_reference(
    model: Model, *, batch: int, threads: int, timeout_s: float
) -> Iterator[Runner]:
    """The runner of the float reference of a model: its source's, or its exported stage.

    Args:
        model: The exported stage, which says what its reference is.
        batch: Samples that the model takes at a time.
        threads: Threads of the runtime.
        timeout_s: Its time limit, seconds.

    Raises:
        RunnerError: it cannot be opened.
    """
    if model.source.reference == STAGE_RUNNER:
        with opened_stage(model, threads=threads, timeout_s=timeout_s) as runner:
            yield runner
        return
    options = {
        "load_options": dict(model.source.load_options),
        "threads": threads,
        "batch": batch,
    }
    spec = RunnerSpec(model.source.reference, model.source.path, options, timeout_s)
    with open_runner(spec) as runner:
        yield runner
