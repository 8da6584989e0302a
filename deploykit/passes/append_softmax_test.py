"""Softmax is appended where it makes probabilities of scores, and refused elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.errors import ContractError
from deploykit.passes.append_softmax import append_softmax
from deploykit_testing.graphs import as_model, ops, parse, run


def test_the_scores_become_probabilities() -> None:
    model = as_model(
        parse("net (float[1,4] x, float[4,3] W) => (float[1,3] y) { y = MatMul(x, W) }")
    )
    made, softmax_of = append_softmax(model)
    assert softmax_of == {"probabilities": "y"}
    assert ops(made.graph) == ["MatMul", "Softmax"]
    assert ops(model.graph) == ["MatMul"]
    x = np.ones((1, 4), np.float32)
    scores, shares = (run(m.graph, {"x": x})[0] for m in (model, made))
    assert np.allclose(shares, np.exp(scores) / np.exp(scores).sum(), atol=1e-6)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("net (float[1,4] x) => (float[1,4] y) { y = Sigmoid(x) }", "independent"),
        ("net (float[1,4,2,2] x) => (float[1,4,2,2] y) { y = Relu(x) }", "outputs of shape"),
        ("net (float[1,4] x) => (float[1,4] y, float[1,4] z) { y = Relu(x) z = Neg(x) }", "shape"),
    ],
)
def test_what_is_no_score_is_refused(text: str, words: str) -> None:
    with pytest.raises(ContractError, match=words):
        append_softmax(as_model(parse(text)))
