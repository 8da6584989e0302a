"""What a conversion is asked for, and what that comes to: targets, precisions, runners."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from deploykit.errors import UserError
from deploykit.flow.runners import select_runners
from deploykit.installation import why_not_installed
from deploykit.model import Precision
from deploykit.runners.process import check_installed
from deploykit.runners.registry import find_runner
from deploykit.target import (
    ArtifactRequest,
    Target,
    available_targets,
    check_request,
    default_precision_of,
    find_target,
    options_of,
)
from deploykit.target_options import (
    DEFAULT_TARGET,
    check_option_precisions,
    check_option_targets,
    options_of_precision,
)
from deploykit.verdict import SkippedTarget

if TYPE_CHECKING:
    from deploykit.calibration.named_data import Sample
    from deploykit_quantize.policy import Observer

_PRECISIONS = tuple(p.value for p in Precision)


@dataclass(frozen=True)
class ConvertRequest:
    """What to make of a model, and how strictly to look at it.

    Attributes:
        targets: Names of targets; ``all`` for every installed one that has the precisions.
        precisions: Names of precisions: ``fp32``, ``fp16``, ``w8``, ``int8``; empty for what each
            target's options are for, or else its default (fp32 of most).
        options: Target → its own options, e.g. ``{"tflite": {"io": "float32"}}``.
        out: The bundle's folder; None for a folder named like the model, here.
        calibration: Images or ready tensors for int8: a path, or an iterable of samples, each a
            mapping from input name to array (`deploykit.calibration.named_data`); None for the
            checkpoint's own sample.
        calibration_limit: Use at most so many of them; None for all.
        calibration_table: A table made before, instead of data.
        skip_unreadable: Whether images of a folder that cannot be decoded are omitted.
        allow_suspicious: Whether calibration data that look like noise are a warning only.
        method: How int8 is quantized: ``auto``, ``minmax`` or another of
            `deploykit_quantize.methods`; None for ``auto``, with an observer ``minmax``.
        observer: How ranges are chosen; None for min-max, or what the method finds.
        keep_float: Layers that int8 leaves in floats: regular expressions over module paths
            and value names (`deploykit_quantize.scope`).
        verify: Whether to run what was written, and to keep golden vectors.
        runners: Names of runners; empty for all of each target's.
        cpus: ARM64 CPUs on which the files are run too (`deploykit.runners.arm64`).
        samples: Number of samples to verify on; None for 64, or all if there are fewer, and 16
            synthetic ones where there are none. At most 16 are kept as golden vectors. Emulated
            runners take fewer.
        limits: Overrides such as ``int8.max_error_lsb=3``.
        layers: Whether to compare value by value.
        keep_stages: Whether the bundle holds the stages as .onnx files, so that `verify` compares
            layers on any machine.
        threads: Threads of each runtime.
        timeout_s: Time limit of each runtime, seconds.
    """

    targets: tuple[str, ...] = (DEFAULT_TARGET,)
    precisions: tuple[str, ...] = ()
    options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    out: Path | None = None
    calibration: Path | Iterable[Sample] | None = None
    calibration_limit: int | None = None
    calibration_table: Path | None = None
    skip_unreadable: bool = False
    allow_suspicious: bool = False
    method: str | None = None
    observer: Observer | None = None
    keep_float: tuple[str, ...] = ()
    verify: bool = True
    runners: tuple[str, ...] = ()
    cpus: tuple[str, ...] = ()
    samples: int | None = None
    limits: tuple[str, ...] = ()
    layers: bool = False
    keep_stages: bool = False
    threads: int = 1
    timeout_s: float = 120.0

    @property
    def method_name(self) -> str:
        """The method: an observer that is asked for leaves nothing to choose."""
        return self.method or ("auto" if self.observer is None else "minmax")

    @property
    def chooses_method(self) -> bool:
        """Whether samples are kept apart to choose by."""
        return self.method_name == "auto"


ALL_TARGETS = "all"


def plan_artifacts(
    request: ConvertRequest,
) -> tuple[list[tuple[Target, Precision]], list[SkippedTarget]]:
    """What is written: each target with each precision.

    Returns:
        The plan, and what ``all`` leaves out.

    Raises:
        UserError: an unknown target, precision or option, or nothing to write.
    """
    check_method(request)
    if ALL_TARGETS in request.targets:
        return _plan_of_all(request)
    return _plan_of_named(request), []


def check_method(request: ConvertRequest) -> None:
    """Refuse a method that is not known, or one that chooses beside an observer.

    Raises:
        UserError: either.
    """
    from deploykit_quantize.methods import method_called

    if request.chooses_method and request.observer is not None:
        raise UserError(
            f"method auto and observer {request.observer.method}",
            expected="one of them: auto chooses the observer",
            advice="leave out --method to have the observer alone, or --observer",
        )
    if not request.chooses_method:
        method_called(request.method_name)


def _plan_of_all(
    request: ConvertRequest,
) -> tuple[list[tuple[Target, Precision]], list[SkippedTarget]]:
    """Every installed target with the precisions that it has."""
    plan: list[tuple[Target, Precision]] = []
    skipped: list[SkippedTarget] = []
    for name in available_targets():
        if missing := why_not_installed(name):
            skipped.append(SkippedTarget(name, "", missing))
            continue
        has = [p.value for p in find_target(name).precisions]
        lacks = [p for p in request.precisions if p not in has and p in _PRECISIONS]
        skipped += [SkippedTarget(name, p, f"{name} writes {', '.join(has)}") for p in lacks]
        precisions = tuple(p for p in request.precisions if p not in lacks)
        if precisions or not request.precisions:
            options = {k: v for k, v in request.options.items() if k == name}
            one = replace(request, targets=(name,), precisions=precisions, options=options)
            plan += _plan_of_named(one)
    if not plan:
        raise UserError(
            "no target can be written: "
            + "; ".join(f"{o.target} {o.precision}".strip() + f": {o.reason}" for o in skipped),
            expected="a target that is here",
        )
    check_option_targets(request.options, [target.name for target, _ in plan])
    return plan, skipped


def _plan_of_named(request: ConvertRequest) -> list[tuple[Target, Precision]]:
    if not request.targets:
        raise UserError("nothing to make", expected="at least one target")
    check_option_targets(request.options, request.targets)
    plan = []
    for name in dict.fromkeys(request.targets):
        target = find_target(name)
        given = request.options.get(name, {})
        precisions = _precisions_of(target, given, request)
        asked = [precision.value for precision in precisions]
        check_option_precisions(name, options_of(target), given, asked)
        for precision in precisions:
            if precision not in target.precisions:
                known = ", ".join(p.value for p in target.precisions)
                raise UserError(
                    f"{name} cannot be written as {precision.value}", expected=f"one of {known}"
                )
            check_request(target, request_of(target, precision, request))
            plan.append((target, precision))
    return plan


def request_of(target: Target, precision: Precision, request: ConvertRequest) -> ArtifactRequest:
    """What a target is asked to write: a precision, with the options that it has."""
    given = request.options.get(target.name, {})
    options = options_of_precision(target.name, options_of(target), given, precision.value)
    return ArtifactRequest(precision, options)


def _precisions_of(
    target: Target, given: Mapping[str, str], request: ConvertRequest
) -> list[Precision]:
    """What is asked for; if nothing is, what the options are for, or else the default."""
    if request.precisions:
        return [_precision_called(name) for name in dict.fromkeys(request.precisions)]
    declared = [o for name in given for o in options_of(target) if o.matches(name)]
    implied = [_precision_called(o.precisions[0]) for o in declared if o.precisions]
    return list(dict.fromkeys(implied)) or [default_precision_of(target)]


def _precision_called(text: str) -> Precision:
    try:
        return Precision(text)
    except ValueError:
        raise UserError(
            f"unknown precision {text!r}", expected=f"one of {', '.join(_PRECISIONS)}"
        ) from None


def choose_runners(
    request: ConvertRequest, plan: Sequence[tuple[Target, Precision]]
) -> dict[str, tuple[str, ...]]:
    """Target → names of the runners that verify its artefacts.

    Raises:
        UserError: a runner that none of the targets has.
        MissingDependencyError: the package of one of them is not installed; said before any work.
    """
    chosen: dict[str, tuple[str, ...]] = {}
    known: list[str] = []
    for target, _ in plan:
        known += [r.name for r in target.runners if r.name not in known]
        found = select_runners(target.runners, request.runners, request.cpus)
        chosen[target.name] = tuple(r.name for r in found) if request.verify else ()
    unknown = [name for name in request.runners if name.partition("@")[0] not in known]
    if unknown:
        raise UserError(
            f"no runner of {', '.join(chosen)} is called {', '.join(unknown)}",
            expected=f"one of {', '.join(known)}",
        )
    if request.verify:
        for name in dict.fromkeys(n for names in chosen.values() for n in names):
            check_installed(find_runner(name))
    return chosen
