"""The note of a multiple."""

from __future__ import annotations

import onnx_ir as ir

from deploykit.graph.value_multiple import multiple_of, set_multiple


def test_a_value_without_a_note_is_itself() -> None:
    assert multiple_of(ir.Value(name="x")) == ("x", 1.0)


def test_the_note_survives_saving() -> None:
    value = ir.Value(name="x.times_6", shape=ir.Shape([1]), type=ir.TensorType(ir.DataType.FLOAT))
    set_multiple(value, "x", 1 / (1 / 6))
    node = ir.Node("", "Identity", [value])
    graph = ir.Graph([value], node.outputs, nodes=[node], opset_imports={"": 20}, name="g")
    node.outputs[0].name = "y"
    restored = ir.from_proto(ir.to_proto(ir.Model(graph, ir_version=10)))
    assert multiple_of(restored.graph.inputs[0]) == ("x", 1 / (1 / 6))
