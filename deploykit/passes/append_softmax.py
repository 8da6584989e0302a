"""Softmax behind the scores of a classifier, so that the artefact gives probabilities."""

from __future__ import annotations

from deploykit.errors import ContractError
from deploykit.graph.editing import GraphEditor
from deploykit.graph.reading import known_shape
from deploykit.graph.score_kinds import LOGITS, score_kinds
from deploykit.model import Model

_OUTPUT = "probabilities"
_RANK = 2


def append_softmax(fused: Model) -> tuple[Model, dict[str, str]]:
    """The fused stage with Softmax over the classes behind its output.

    Args:
        fused: A fused stage with one output of shape (n, classes); it is not changed.

    Returns:
        The stage, whose output is called ``probabilities`` (with a number if that is taken), and:
        that name → the output that it is made from.

    Raises:
        ContractError: other outputs, or one that holds probabilities already.
    """
    graph = fused.graph.clone()
    outputs = list(graph.graph.outputs)
    shapes = [known_shape(value) for value in outputs]
    if len(shapes) != 1 or len(shapes[0]) != _RANK or shapes[0][1] <= 1:
        raise ContractError(
            f"softmax of a model with outputs of shape {shapes}",
            expected="one output of shape (n, classes)",
            advice="leave the option softmax out",
        )
    scores = outputs[0]
    kind = score_kinds(graph.graph).get(scores.name or "", LOGITS)
    maker = scores.producer()
    if kind != LOGITS or maker is None:
        raise ContractError(
            f"softmax of '{scores.name}', which holds {kind if maker else 'a constant'}",
            expected="scores that are no probabilities yet",
            advice="leave the option softmax out",
        )
    result = GraphEditor(graph.graph).node(
        "Softmax",
        [scores],
        shapes[0],
        like=maker,
        before=None,
        name=_OUTPUT,
        attributes={"axis": 1},
    )
    node = result.producer()
    assert node is not None
    graph.graph.remove(node)
    graph.graph.append(node)  # `like` stands before it
    graph.graph.outputs[0] = result
    return fused.advanced(graph, fused.stage, ()), {result.name or "": scores.name or ""}
