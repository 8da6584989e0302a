"""From the fused stage to artefacts in memory: quantize as the target wants, lower, write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploykit.errors import UnsupportedModelError, UnsupportedOpsError
from deploykit.flow.plan import ConvertRequest, request_of
from deploykit.model import Model, Precision, Stage
from deploykit.target import Artifact, Target, policy_of
from deploykit.verdict import SkippedTarget

if TYPE_CHECKING:
    from deploykit.calibration.table import CalibrationTable
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
    """

    stem: str
    artifact: Artifact
    stage_key: str
    stage: Model

    @property
    def path(self) -> str:
        """The artefact's path in the bundle."""
        return self.stem + self.artifact.suffix

    @property
    def files(self) -> dict[str, bytes]:
        """Path in the bundle > bytes of every file of it."""
        return self.artifact.files(self.stem)


def make_artifacts(
    fused: Model,
    plan: Sequence[tuple[Target, Precision]],
    request: ConvertRequest,
    table: CalibrationTable | None,
    progress: Callable[[str], None],
) -> tuple[list[BuiltArtifact], tuple[SkippedTarget, ...]]:
    """Every artefact of the plan, and what a target refuses while another takes the model.

    Raises:
        UnsupportedModelError: one target is planned and refuses, or all of several do.
    """
    made: list[BuiltArtifact] = []
    refusals: list[UnsupportedModelError] = []
    skipped: list[SkippedTarget] = []
    alone = len({target.name for target, _ in plan}) == 1
    for target, precision in plan:
        try:
            made.append(_make(fused, target, precision, request, table))
        except UnsupportedModelError as error:
            if alone:
                raise
            refusals.append(error)
            ops = error.ops if isinstance(error, UnsupportedOpsError) else ()
            skipped.append(
                SkippedTarget(target.name, precision.value, str(error), ops, refused=True)
            )
            progress(f"{target.name} {precision.value}: left out, the target refuses the model")
            continue
        size = sum(len(data) for data in made[-1].files.values())
        progress(f"{target.name} {precision.value}: {size:,} bytes")
    if not made:
        names = ", ".join(dict.fromkeys(target.name for target, _ in plan))
        reasons = "\n".join(dict.fromkeys(str(error) for error in refusals))
        raise UnsupportedModelError(f"each of {names} refuses the model\n{reasons}")
    return made, tuple(skipped)


def _make(
    fused: Model,
    target: Target,
    precision: Precision,
    request: ConvertRequest,
    table: CalibrationTable | None,
) -> BuiltArtifact:
    wanted = request_of(target, precision, request)
    policy = policy_of(target, precision, wanted.options)
    stage, key = fused, Stage.FUSED.value
    if policy is not None:
        stage, key = (
            quantize_stage(fused, policy, request, table),
            f"{target.name}.{precision.value}",
        )
    artifact = target.write(stage, wanted)
    return BuiltArtifact(f"{fused.name}.{precision.value}", artifact, key, stage)


def quantize_stage(
    fused: Model, policy: Policy, request: ConvertRequest, table: CalibrationTable | None
) -> Model:
    """The stage that a policy asks for.

    Args:
        fused: The fused stage; a QDQ model that the user brought keeps its scales.
        policy: A target's.
        request: Whose observer chooses the ranges.
        table: What the values held; None where weights alone are quantized.
    """
    from deploykit.graph.qdq import has_qdq
    from deploykit_quantize.adopt_qdq import adopt_quantization
    from deploykit_quantize.policy import Observer
    from deploykit_quantize.quantizer import quantize_model
    from deploykit_quantize.weight_only import quantize_weights

    if has_qdq(fused.graph):
        return adopt_quantization(fused, policy)
    if policy.recipe.activations is None:
        return quantize_weights(fused, policy.recipe)
    return (
        fused
        if table is None
        else quantize_model(fused, policy, table, request.observer or Observer())
    )
