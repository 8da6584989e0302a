"""From the fused stage to artefacts in memory: quantize as the target wants, lower, write."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING

from deploykit.errors import DeploykitError, UnsupportedModelError, UnsupportedOpsError
from deploykit.flow.plan import ConvertRequest, request_of
from deploykit.graph.ops import is_canonical
from deploykit.model import Model, Precision, Stage
from deploykit.passes.append_softmax import append_softmax
from deploykit.target import Artifact, Target, policy_of
from deploykit.target_options import SOFTMAX
from deploykit.time_limit import time_limit
from deploykit.verdict import SkippedTarget

if TYPE_CHECKING:
    from deploykit_quantize.method import Calibration
    from deploykit_quantize.policy import Policy


@dataclass(frozen=True)
class BuiltArtifact:
    """An artefact, with the stage that it was made from.

    Attributes:
        stem: Its name in the bundle without the suffix.
        artifact: The file in memory.
        stage_key: Name of the stage's outputs in the golden vectors: ``fused``, or
            ``TARGET.PRECISION`` for a quantized stage.
        stage: The stage.
        softmax_of: Output that Softmax was appended for → the model's own output behind it.
    """

    stem: str
    artifact: Artifact
    stage_key: str
    stage: Model
    softmax_of: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """The artefact's path in the bundle."""
        return self.stem + self.artifact.suffix

    @property
    def files(self) -> dict[str, bytes]:
        """Path in the bundle → bytes of every file of it."""
        return self.artifact.files(self.stem)


def make_artifacts(
    fused: Model,
    plan: Sequence[tuple[Target, Precision]],
    request: ConvertRequest,
    calibrate: Callable[[], Calibration],
    progress: Callable[[str], None],
) -> tuple[list[BuiltArtifact], tuple[SkippedTarget, ...]]:
    """Every artefact of the plan, and what a target refuses while something else is written.

    Files without calibration come first, and what a target refuses in floats it refuses in
    integers too, so that nothing is calibrated for a refusal. Whatever goes wrong inside of one
    target costs that file alone.

    Args:
        fused: The fused stage.
        plan: What is written.
        request: How.
        calibrate: Gives what was calibrated; called once, when the first file needs it.
        progress: Called with one line a file.

    Raises:
        DeploykitError: nothing can be written. One cause is raised as it is, several as an
            UnsupportedModelError.
    """
    table = cache(calibrate)
    made: dict[tuple[str, Precision], BuiltArtifact] = {}
    refusals: dict[tuple[str, Precision], DeploykitError] = {}
    in_floats: dict[str, UnsupportedModelError] = {}
    for target, precision in sorted(plan, key=lambda item: needs_table(fused, [item], request)):
        key = target.name, precision
        calibrated = needs_table(fused, [(target, precision)], request)
        refusal: DeploykitError | None = None
        if calibrated:
            refusal = _early_refusal(fused, target, in_floats)
        if refusal is None:
            ranges = table() if calibrated else None
            try:
                with time_limit(f"writing {precision.value} for {target.name}"):
                    made[key] = _make(fused, target, precision, request, ranges, progress)
            except Exception as error:
                refusal = _as_refusal(error, target, precision)
        if refusal is not None:
            refusals[key] = refusal
            if isinstance(refusal, UnsupportedModelError) and refusal.__cause__ is None:
                in_floats.setdefault(target.name, refusal)
            progress(f"{target.name} {precision.value}: left out, the target refuses the model")
            continue
        size = sum(len(data) for data in made[key].files.values())
        progress(f"{target.name} {precision.value}: {size:,} bytes")
    if not made:
        raise _nothing_made(refusals)
    order = [(target.name, precision) for target, precision in plan]
    skipped = tuple(_skipped(*key, refusals[key]) for key in order if key in refusals)
    return [made[key] for key in order if key in made], skipped


def needs_table(
    fused: Model, plan: Sequence[tuple[Target, Precision]], request: ConvertRequest
) -> bool:
    """Whether one of these files is quantized by what the values of the model held."""
    from deploykit.graph.qdq import has_qdq

    if has_qdq(fused.graph):
        return False
    policies = [
        policy_of(target, precision, request_of(target, precision, request).options)
        for target, precision in plan
    ]
    return any(p is not None and p.recipe.activations is not None for p in policies)


def _early_refusal(
    fused: Model, target: Target, in_floats: Mapping[str, UnsupportedModelError]
) -> UnsupportedModelError | None:
    """What is refused whatever the ranges are: ops that no rewrite of a policy knows and the
    target cannot lower, or the same model in floats."""
    table = target.lowerings()
    nodes = list(fused.graph.graph)
    if table.missing(n for n in nodes if not is_canonical(n.domain, n.op_type)):
        return UnsupportedOpsError(target.name, table.missing(nodes))
    return in_floats.get(target.name)


def _as_refusal(error: Exception, target: Target, precision: Precision) -> DeploykitError:
    """An error inside of a target as its refusal; a defect of ours says that it is one."""
    if isinstance(error, DeploykitError):
        return error
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    where = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames))
    refusal = UnsupportedModelError(
        f"the target {target.name} failed on this model as {precision.value}: "
        f"{type(error).__name__}: {str(error).strip() or 'without a message'} ({where})",
        advice="this is a defect of the target, not of the model: report it with the model",
    )
    refusal.__cause__ = error
    return refusal


def _skipped(target: str, precision: Precision, error: DeploykitError) -> SkippedTarget:
    ops = error.ops if isinstance(error, UnsupportedOpsError) else ()
    return SkippedTarget(target, precision.value, str(error), ops, refused=True)


def _nothing_made(refusals: Mapping[tuple[str, Precision], DeploykitError]) -> DeploykitError:
    """What is raised where each file of the plan is refused."""
    reasons = list(dict.fromkeys(str(error) for error in refusals.values()))
    names = list(dict.fromkeys(name for name, _ in refusals))
    if len(names) == 1 and len(reasons) == 1:
        return next(iter(refusals.values()))
    if len(names) == 1:
        return UnsupportedModelError("\n  ".join(reasons))
    listed = indent("\n".join(reasons), "  ")
    return UnsupportedModelError(f"each of {', '.join(names)} refuses the model\n{listed}")


def _make(
    fused: Model,
    target: Target,
    precision: Precision,
    request: ConvertRequest,
    calibration: Calibration | None,
    progress: Callable[[str], None],
) -> BuiltArtifact:
    wanted = request_of(target, precision, request)
    policy = policy_of(target, precision, wanted.options)
    key = Stage.FUSED.value
    softmax_of: dict[str, str] = {}
    if wanted.options.get(SOFTMAX.name) == "yes":
        fused, softmax_of = append_softmax(fused)
        key = f"{key}.{SOFTMAX.name}"
    stage = fused
    if policy is not None:
        stage, key = (
            quantize_stage(
                fused, policy, request, calibration, lambda line: progress(f"{target.name} {line}")
            ),
            f"{target.name}.{precision.value}",
        )
    artifact = target.write(stage, wanted)
    return BuiltArtifact(f"{fused.name}.{precision.value}", artifact, key, stage, softmax_of)


def quantize_stage(
    fused: Model,
    policy: Policy,
    request: ConvertRequest,
    calibration: Calibration | None,
    progress: Callable[[str], None] = lambda _: None,
) -> Model:
    """The stage that a policy asks for.

    Args:
        fused: The fused stage; a QDQ model that the user brought keeps its scales.
        policy: A target's.
        request: Its method and observer.
        calibration: What the values held; None where weights alone are quantized.
        progress: Called with one line a step of the method ``auto``.
    """
    from deploykit.graph.qdq import has_qdq
    from deploykit_quantize.adopt_qdq import adopt_quantization
    from deploykit_quantize.choose_method import quantize_automatically
    from deploykit_quantize.method import Quantization
    from deploykit_quantize.methods import method_called
    from deploykit_quantize.scope import Scope
    from deploykit_quantize.weight_only import quantize_weights

    if has_qdq(fused.graph):
        return adopt_quantization(fused, policy)
    policy = replace(policy, keep_float=tuple(map(Scope, request.keep_float)))
    if policy.recipe.activations is None:
        return quantize_weights(fused, policy.recipe)
    if calibration is None:
        return fused
    if request.chooses_method:
        return quantize_automatically(fused, policy, calibration, progress)
    method = method_called(request.method_name)
    if request.observer is not None:
        method = replace(method, observer=request.observer)
    return Quantization(fused, policy, calibration).quantize(method)
