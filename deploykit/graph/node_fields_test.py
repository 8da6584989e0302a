"""What a lowering reads of a node, and how it says what is not there."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from deploykit.graph.node_fields import (
    FormError,
    constant_ints,
    needed_constant,
    needed_int,
    needed_ints,
    needed_value,
    shape_of,
)
from deploykit.graph.reading import constant_array, constant_scalar
from deploykit_testing.graphs import parse


def node_of(text: str) -> ir.Node:
    """The last node of a graph."""
    return list(parse(f"g {text}").graph)[-1]


CONV = "(float[1,3,5,5] x, float[2,3,3,3] W) => (float[1,2,3,3] y) { y = Conv <group = 1> (x, W) }"


def test_what_is_there() -> None:
    node = node_of(CONV)
    assert needed_int(node, "group") == 1
    assert shape_of(needed_value(node, 0)) == (1, 3, 5, 5)
    assert needed_constant(node, 1, "weights").shape == (2, 3, 3, 3)
    assert constant_array(needed_value(node, 0)) is None


def test_what_is_missing_is_told() -> None:
    node = node_of(CONV)
    with pytest.raises(FormError, match="input 2 is missing"):
        needed_value(node, 2)
    with pytest.raises(FormError, match="no attribute 'pads'"):
        needed_ints(node, "pads")
    with pytest.raises(FormError, match="bias is computed, not constant"):
        needed_constant(node, 0, "bias")
    assert constant_ints(node, 2) is None
    with pytest.raises(FormError, match=r"input 0 \('x'\) is computed"):
        constant_ints(node, 0)


def test_a_shape_that_is_not_static() -> None:
    node = node_of("(float[N,3] x) => (float[N,3] y) { y = Relu (x) }")
    with pytest.raises(FormError, match=r"'x' has the dynamic shape \[N,3\].*\n.*--input"):
        shape_of(node.inputs[0])
    node.inputs[0].shape = None
    with pytest.raises(FormError, match="'x' has the unknown shape"):
        shape_of(node.inputs[0])


def test_an_initializer_that_is_an_input_is_not_constant() -> None:
    """Whoever runs the graph may give another."""
    node = node_of(CONV)
    weights = node.inputs[1]
    node.graph.inputs.append(weights)
    assert constant_array(weights) is None


def test_a_scalar_of_any_rank() -> None:
    model = parse(
        "g (float[2] x) => (float[2] y) <float[1,1] s = {3}, float[2] v = {1, 2}>"
        " { a = Mul (x, s) y = Mul (a, v) }"
    )
    first, second = model.graph
    assert constant_scalar(first.inputs[1]) == 3.0
    assert constant_scalar(second.inputs[1]) is None
    assert constant_scalar(second.inputs[0]) is None
