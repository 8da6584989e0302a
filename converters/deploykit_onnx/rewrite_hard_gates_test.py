"""HardSigmoid and HardSwish become Mul, Add and Clip, and the numbers stay."""

from __future__ import annotations

import pytest

from deploykit_onnx.rewrite_hard_gates import RewriteHardGates
from deploykit_testing.graphs import assert_same_numbers, ops, parse


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ("HardSwish (x)", ["Mul", "Add", "Clip", "Mul"]),
        ("HardSigmoid <alpha = 0.166667, beta = 0.5> (x)", ["Mul", "Add", "Clip"]),
        ("HardSigmoid (x)", ["Mul", "Add", "Clip"]),
    ],
)
def test_rewritten(node: str, expected: list[str]) -> None:
    model = parse(f"g (float[1, 4, 3, 3] x) => (float[1, 4, 3, 3] y) {{ y = {node} }}")
    before = model.clone()
    notes = RewriteHardGates().apply(model).notes
    assert ops(model) == expected
    assert [n.matched for n in notes] == [True]
    assert_same_numbers(before, model)
    assert [v.name for v in model.graph.outputs] == ["y"]


def test_others_stay() -> None:
    model = parse("g (float[1, 4] x) => (float[1, 4] y) { y = Sigmoid (x) }")
    assert RewriteHardGates().apply(model).notes == ()
    assert ops(model) == ["Sigmoid"]
