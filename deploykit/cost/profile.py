"""A model's cost before and after fusion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploykit.cost.layer import ElementSizes, ModelProfile, StageCost
from deploykit.model import Model, Precision, Stage

if TYPE_CHECKING:
    import onnx_ir as ir

    from deploykit.passes.base import Pass

BEFORE, AFTER = "before fusion", "after fusion"


def profile_model(model: Model, precision: Precision = Precision.FP32) -> ModelProfile:
    """Count a model before and after fusion.

    Args:
        model: Any float stage up to the fused one, or an exported stage with QDQ nodes; it is left
            as it is. Of a fused stage there is no "before": both are counted on it.
        precision: Whose element sizes the bytes are counted in.

    Raises:
        UnsupportedModelError: a shape that is not static.
        MissingDependencyError: onnxsim is not installed.
    """
    return profile_stages(model, fused_stage(model), precision)


def fused_stage(model: Model) -> Model:
    """The fused stage of a model; see `profile_model` for what is accepted and raised."""
    from deploykit.passes.pipeline import advance

    return advance(model, Stage.FUSED)


def profile_stages(model: Model, fused: Model, precision: Precision) -> ModelProfile:
    """As `profile_model`, where the fused stage is at hand."""
    sizes = ElementSizes.of(precision)
    return ModelProfile(
        model=model.name,
        precision=precision.value,
        before=_count(_canonical_graph(model), BEFORE, sizes, absorb=False),
        after=_count(fused.graph, AFTER, sizes, absorb=True),
    )


def _count(graph: ir.Model, stage: str, sizes: ElementSizes, *, absorb: bool) -> StageCost:
    from deploykit.cost.count import count_graph
    from deploykit.graph.qdq import fold_qdq, has_qdq

    # What was quantized elsewhere is counted by its float shape: Q and DQ are no layers.
    return count_graph(
        fold_qdq(graph).model if has_qdq(graph) else graph, stage, sizes, absorb=absorb
    )


def _canonical_graph(model: Model) -> ir.Model:
    """Canonical ops, with nothing folded into anything and nothing fused."""
    from deploykit.passes.base import run_passes
    from deploykit.passes.pipeline import advance

    if model.stage is Stage.FUSED:
        return model.graph
    graph = advance(model, Stage.SIMPLIFIED).graph.clone()
    run_passes(graph, _canonical_passes())
    return graph


def _canonical_passes() -> tuple[Pass, ...]:
    from deploykit.passes.canonicalize import Canonicalize
    from deploykit.passes.eliminate_identities import EliminateIdentities
    from deploykit.passes.fold_constants import FoldConstants
    from deploykit.passes.infer_shapes import InferShapes
    from deploykit.passes.inline_functions import InlineFunctions
    from deploykit.passes.remove_unused import RemoveUnused

    return (
        InlineFunctions(),
        InferShapes(),
        FoldConstants(),
        Canonicalize(),
        EliminateIdentities(),
        RemoveUnused(),
    )
