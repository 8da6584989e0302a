"""Where by a mask that is known, and casts to what a value is already: the same numbers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from deploykit_testing.graphs import assert_same_numbers, canonical_reasons, parse, prepare

BODY = """g (float[1,2,3] x, float[1,2,3] u) => (float[1,2,3] y)
  <bool[3] mask = {{{mask}}}, float v = {{{fill}}}> {{ {node} }}"""


@pytest.mark.parametrize("fill", ["0.0", "-7.5", "-3.4e38", "1e35"])
@pytest.mark.parametrize(
    "node", ["y = Where (mask, v, x)", "y = Where (mask, x, v)", "y = Where (mask, x, u)"]
)
@pytest.mark.parametrize("mask", ["1, 0, 1", "0, 0, 0", "1, 1, 1"])
def test_a_known_mask_becomes_arithmetic(mask: str, node: str, fill: str) -> None:
    text = BODY.format(mask=mask, fill=fill, node=node)
    after = prepare(parse(text))
    assert_same_numbers(parse(text), after)
    assert "Where" not in {n.op_type for n in after.graph}


def test_minus_infinity_hides_what_it_hides() -> None:
    text = BODY.format(mask="1, 0, 1", fill="0.0", node="y = Where (mask, v, x)")
    graph = parse(text)
    graph.graph.initializers["v"].const_value = ir.Tensor(np.array(-np.inf, np.float32), name="v")
    after = prepare(graph)
    (node,) = after.graph
    assert node.op_type == "Min"
    bounds = node.inputs[1]
    assert bounds is not None
    assert bounds.const_value is not None
    assert np.isfinite(bounds.const_value.numpy()).all()


def test_what_is_computed_is_left_and_a_cast_to_its_own_type_goes() -> None:
    computed = """g (float[1,3] x) => (float[1,3] y) <float zero = {0.0}> {
        c = Greater (x, zero)
        y = Where (c, x, zero) }"""
    assert any("computed" in reason for reason in canonical_reasons(computed))
    cast = "g (float[1,3] x, float[1] u) => (float[1,3] y) { c = CastLike (x, u) y = Relu (c) }"
    after = prepare(parse(cast))
    assert "CastLike" not in {n.op_type for n in after.graph}
