"""A fused or quantized stage as the graph that is lowered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from deploykit.errors import ContractError, NoIntegerLayersError
from deploykit.model import Model, Precision

if TYPE_CHECKING:
    import onnx_ir as ir

    from deploykit_tflite.lower_graph import StageGraph


def stage_graph(model: Model, precision: Precision) -> tuple[StageGraph, Mapping[str, str]]:
    """What is lowered, and: value name there → value name of the stage."""
    from deploykit.graph.qdq import fold_qdq, has_qdq, with_signed_integers
    from deploykit_tflite.lower_graph import StageGraph

    quantized = has_qdq(model.graph)
    if precision is Precision.INT8 and not quantized:
        raise NoIntegerLayersError
    if quantized and precision is not Precision.INT8:
        raise ContractError(
            f"precision {precision.value} from a model that is quantized",
            expected="a float model",
        )
    if not quantized:
        rewritten = _for_floats(model.graph)
        names = _names_of_same_shape(model.graph, rewritten)
        return StageGraph(rewritten, runs_in_integers=lambda _: False), names
    folded = with_signed_integers(fold_qdq(model.graph))
    stage = StageGraph(folded.model, folded.runs_in_integers, folded.params, folded.integers)
    return stage, folded.stage_values


def _for_floats(model: ir.Model) -> ir.Model:
    from deploykit_tflite.policy import FLOAT_REWRITES

    clone = model.clone()
    for rewrite in FLOAT_REWRITES:
        rewrite.apply(clone)
    return clone


def _names_of_same_shape(stage: ir.Model, rewritten: ir.Model) -> dict[str, str]:
    """The values of a stage that its rewritten form has too, by name: to itself."""
    from deploykit.graph.reading import static_shape

    shapes = [
        {
            v.name: static_shape(v)
            for v in (*m.graph.inputs, *(o for node in m.graph for o in node.outputs))
        }
        for m in (stage, rewritten)
    ]
    return {
        name: name for name, shape in shapes[0].items() if name and shapes[1].get(name) == shape
    }
