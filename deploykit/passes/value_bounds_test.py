"""Bounds of values hold for what ONNX Runtime computes."""

from __future__ import annotations

import math

import pytest

from deploykit.passes.value_bounds import ANYTHING, find_bounds
from deploykit_testing.graphs import parse, prepare, random_feeds, run

_MEAN = "AveragePool <kernel_shape = [3,3], pads = [1,1,1,1]"
_MAX = "MaxPool <kernel_shape = [2,2]>"


@pytest.mark.parametrize(
    ("body", "bounds"),
    [
        ("y = Relu (x)", (0.0, math.inf)),
        ("y = Clip (x, low, six)", (-1.0, 6.0)),
        ("a = Relu (x) y = Clip (a, low, six)", (0.0, 6.0)),
        ("a = Clip (x, low, six) y = Relu (a)", (0.0, 6.0)),
        ("a = Sigmoid (x) y = Add (a, a)", (0.0, 2.0)),
        (f"a = Clip (x, six, seven) y = {_MEAN}> (a)", (6.0, 7.0)),
        (f"a = Clip (x, six, seven) y = {_MEAN}, count_include_pad = 1> (a)", (0.0, 7.0)),
        (f"a = Tanh (x) b = Relu (x) c = Concat <axis = 1> (a, b) y = {_MAX} (c)", (-1, math.inf)),
        ("y = Neg (x)", ANYTHING),
    ],
)
def test_bounds(body: str, bounds: tuple[float, float]) -> None:
    text = f"""g (float[1,4,5,5] x) => (float[1,C,H,V] y)
        <float low = {{-1}}, float six = {{6}}, float seven = {{7}}> {{ {body} }}"""
    model = prepare(parse(text))
    value = model.graph.outputs[0]
    assert find_bounds(value) == bounds
    (found,) = run(model, random_feeds(model, scale=5.0))
    assert found.min() >= bounds[0] - 1e-6
    assert found.max() <= bounds[1] + 1e-6
    assert find_bounds(model.graph.inputs[0]) == ANYTHING
