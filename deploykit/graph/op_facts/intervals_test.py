"""Intervals hold for what ONNX Runtime computes, and the declarations for what ONNX says."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.graph.op_facts import ANYTHING, CANONICAL_OPS, Kind, Op, clamp_of, facts_of, interval
from deploykit_testing.graphs import parse, prepare, run

_FORMS = {
    "Clip": "y = Clip (x, low, high)",
    "LeakyRelu": "y = LeakyRelu <alpha = 0.2> (x)",
    "Elu": "y = Elu <alpha = 0.7> (x)",
    "HardSigmoid": "y = HardSigmoid <alpha = 0.1667, beta = 0.5> (x)",
    "Silu": "gate = Sigmoid (x) y = Mul (x, gate)",
}
_TEXT = (
    """g (float[1,8] x) => (float[1,8] y) <float low = {{-1}}, float high = {{4}}> {{ {body} }}"""
)


def node_of(op_type: str) -> tuple[str, Op]:
    op = next(op for op in CANONICAL_OPS if op.op_type == op_type)
    return _TEXT.format(body=_FORMS.get(op_type, f"y = {op_type} (x)")), op


@pytest.mark.parametrize("op_type", [op.op_type for op in CANONICAL_OPS if op.kind is Kind.UNARY])
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 1000), low=st.floats(-8, 8), width=st.floats(0, 8))
def test_every_unary_op_stays_in_its_interval(
    op_type: str, seed: int, low: float, width: float
) -> None:
    text, op = node_of(op_type)
    bounds = (max(low, 0.0), max(low, 0.0) + width) if op_type == "Sqrt" else (low, low + width)
    x = np.random.default_rng(seed).uniform(*bounds, (1, 8)).astype(np.float32)
    model = prepare(parse(text))
    assert op.interval is not None
    found = op.interval(model.graph[0], lambda _: bounds)
    assert found is not None
    (y,) = run(model, {"x": x})
    slack = 1e-5 * max(1.0, *map(abs, found))
    assert found[0] - slack <= y.min()
    assert y.max() <= found[1] + slack
    if op.least is not None:
        assert y.min() >= op.least - 1e-3
    unknown = op.interval(model.graph[0], lambda _: ANYTHING)
    assert unknown is not None
    assert unknown[0] <= found[0]
    assert found[1] <= unknown[1]


@pytest.mark.parametrize(
    ("body", "bounds"),
    [
        ("y = Relu (x)", (0.0, math.inf)),
        ("y = Clip (x, low, high)", (-1.0, 4.0)),
        ("y = Clip (x, low)", (-1.0, math.inf)),
        ("y = Clip (x, , high)", (-math.inf, 4.0)),
        ("high2 = Neg (low) y = Clip (x, low, high2)", None),
        ("y = Sigmoid (x)", None),
    ],
)
def test_clamp_of(body: str, bounds: tuple[float, float] | None) -> None:
    assert clamp_of(list(parse(_TEXT.format(body=body)).graph)[-1]) == bounds


def test_a_bound_that_means_none_is_infinite() -> None:
    text = _TEXT.format(body="y = Clip (x, low, high)").replace("{4}", "{3.4e38}")
    assert clamp_of(parse(text).graph[0]) == (-1.0, math.inf)


@pytest.mark.parametrize(
    "op", [op for op in CANONICAL_OPS if not op.domain], ids=lambda o: o.op_type
)
def test_operands_are_those_of_the_onnx_schema(op: Op) -> None:
    names = [i.name for i in onnx.defs.get_schema(op.op_type, 20).inputs]
    assert op.weights is None or names[op.weights] in ("W", "B")
    assert op.bias is None or names[op.bias] in ("B", "C")
    for index in op.structural:
        assert names[index] in ("min", "max", "constant_value", "roi", "scales")


def test_what_is_not_declared_has_no_facts() -> None:
    node = parse(_TEXT.format(body="y = Mish (x)")).graph[0]
    assert facts_of(node) is None
    assert interval(node, lambda _: (0.0, 1.0)) is None
