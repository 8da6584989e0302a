"""Names survive edits, and are never taken twice."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from deploykit.graph.editing import GraphEditor, make_attribute, set_attributes, set_input
from deploykit.graph.provenance import MODULE_KEY
from deploykit.graph.reading import (
    constant_scalar,
    only_reader,
    static_shape,
    uniform_constant,
    why_not_private,
)
from deploykit_testing.graphs import assert_same_numbers, ops, parse


def _graph() -> ir.Model:
    return parse("g (float[2] x) => (float[2] y) { a = Neg (x) b = Abs (a) y = Exp (b) }")


def test_constants_get_free_names() -> None:
    model = _graph()
    editor = GraphEditor(model.graph)
    names = [editor.constant(wish, np.zeros(2)).name for wish in ("w", "w", "a", "x", "w")]
    assert names == ["w", "w.1", "a.1", "x.1", "w.2"]
    assert list(model.graph.initializers) == names


def test_a_new_node_takes_over_the_last_name() -> None:
    model = _graph()
    model.graph[1].metadata_props[MODULE_KEY] = "m"
    editor = GraphEditor(model.graph)
    old = model.graph[1]
    new = editor.node("Abs", [old.inputs[0]], (2,), like=old)
    editor.take_over(old.outputs[0], new)
    editor.remove_if_unread(old)
    assert [n.outputs[0].name for n in model.graph] == ["a", "b", "y"]
    assert model.graph[1].metadata_props[MODULE_KEY] == "m"
    assert model.graph[1].name == "node_b"
    assert_same_numbers(_graph(), model)


def test_a_graph_output_is_taken_over_with_its_name() -> None:
    model = _graph()
    editor = GraphEditor(model.graph)
    old = model.graph[2]
    new = editor.node("Exp", [old.inputs[0]], (2,), like=old)
    editor.take_over(old.outputs[0], new)
    editor.remove_if_unread(old)
    assert [v.name for v in model.graph.outputs] == ["y"]
    assert_same_numbers(_graph(), model)


def test_a_node_that_follows() -> None:
    model = _graph()
    editor = GraphEditor(model.graph)
    editor.follow(model.graph[1], "Neg")
    assert ops(model) == ["Neg", "Abs", "Neg", "Exp"]
    assert [n.outputs[0].name for n in model.graph] == ["a", "b.abs", "b", "y"]
    assert model.graph[2].name == "node_b"


def test_bypass_at_an_output_renames_the_source() -> None:
    model = parse("g (float[2] x) => (float[2] y) { a = Neg (x) y = Identity (a) }")
    editor = GraphEditor(model.graph)
    assert editor.bypass(model.graph[1]) == ""
    assert [n.outputs[0].name for n in model.graph] == ["y"]


def test_bypass_between_input_and_output_says_why_not() -> None:
    model = parse("g (float[2] x) => (float[2] y) { y = Identity (x) }")
    assert "keep their names" in GraphEditor(model.graph).bypass(model.graph[0])
    assert ops(model) == ["Identity"]


def test_what_is_read_is_not_removed() -> None:
    model = _graph()
    GraphEditor(model.graph).remove_if_unread(*model.graph)
    assert ops(model) == ["Neg", "Abs", "Exp"]


def test_attributes_of_python_values() -> None:
    kinds = {
        "INT": 3,
        "FLOAT": 0.5,
        "STRING": "same",
        "INTS": (1, 2),
        "FLOATS": (1.0, 2.0),
    }
    for kind, value in kinds.items():
        attribute = make_attribute("a", value)
        assert attribute.type.name == kind
        assert attribute.value == value


def test_inputs_grow_and_attributes_are_replaced() -> None:
    model = parse("g (float[2] x) => (float[2] y) { y = Clip (x) }")
    editor = GraphEditor(model.graph)
    node = model.graph[0]
    set_input(node, 2, editor.constant("high", np.array(1.0, np.float32)))
    assert [v.name if v else None for v in node.inputs] == ["x", None, "high"]
    set_attributes(node, axis=1)
    set_attributes(node, axis=2)
    assert node.attributes["axis"].as_int() == 2


def test_reading() -> None:
    model = parse(
        """g (float[2,N] x) => (float[2,N] y, float[2,N] a) <float[1] one = {1},
        float[2,1] same = {3, 3}, float[2,1] other = {3, 4}> {
        a = Mul (x, one) b = Mul (a, same) y = Mul (b, other) }"""
    )
    a, b = model.graph[0], model.graph[1]
    assert static_shape(model.graph.inputs[0]) is None
    assert constant_scalar(a.inputs[1]) == 1.0
    assert constant_scalar(b.inputs[1]) is None
    assert uniform_constant(b.inputs[1]) == 3.0
    assert uniform_constant(model.graph[2].inputs[1]) is None
    assert why_not_private(a.outputs[0]) == "a value in between is an output of the graph"
    assert why_not_private(b.outputs[0]) == ""
    assert only_reader(b.outputs[0]) is model.graph[2]
    assert only_reader(a.outputs[0]) is None
