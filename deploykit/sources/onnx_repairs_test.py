"""Repaired files against ONNX Runtime on the files as they were."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from deploykit.errors import SourceError
from deploykit.sources.onnx_repairs import repair_graph


def info(name: str, shape: list[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def chain(length: int) -> onnx.GraphProto:
    nodes = [helper.make_node("Relu", [f"v{i}"], [f"v{i + 1}"], f"n{i}") for i in range(length)]
    nodes.append(helper.make_node("Add", ["v1", f"v{length}"], ["y"], "sum"))
    return helper.make_graph(nodes, "g", [info("v0", [1, 2])], [info("y", [1, 2])])


@settings(max_examples=40, deadline=None)
@given(order=st.permutations(range(7)))
def test_nodes_in_any_order_are_sorted(order: list[int]) -> None:
    graph = chain(6)
    nodes = list(graph.node)
    shuffled = onnx.GraphProto()
    shuffled.CopyFrom(graph)
    del shuffled.node[:]
    shuffled.node.extend(nodes[i] for i in order)
    repair_graph(shuffled, "f.onnx")
    known = {"v0"}
    for node in shuffled.node:
        assert set(node.input) <= known
        known |= set(node.output)
    assert {n.name for n in shuffled.node} == {n.name for n in graph.node}


def test_what_is_in_order_stays_as_it_is() -> None:
    graph = chain(3)
    before = graph.SerializeToString()
    repair_graph(graph, "f.onnx")
    assert graph.SerializeToString() == before


def test_a_circle_is_refused() -> None:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    graph = helper.make_graph(nodes, "g", [info("x", [1])], [info("b", [1])])
    with pytest.raises(SourceError, match="in a circle"):
        repair_graph(graph, "f.onnx")


def test_an_inner_graph_waits_for_what_it_takes_from_outside() -> None:
    then = helper.make_graph([helper.make_node("Neg", ["a"], ["t"])], "t", [], [info("t", [1])])
    other = helper.make_graph([helper.make_node("Abs", ["a"], ["e"])], "e", [], [info("e", [1])])
    nodes = [
        helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other),
        helper.make_node("Relu", ["x"], ["a"]),
    ]
    graph = helper.make_graph(nodes, "g", [info("x", [1]), info("c", [])], [info("y", [1])])
    repair_graph(graph, "f.onnx")
    assert [n.op_type for n in graph.node] == ["Relu", "If"]


@pytest.mark.parametrize("dim", [-1, 0, -100])
def test_impossible_dimensions_are_unknown(dim: int) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [info("x", [dim, 3])],
        [info("y", [dim, 3])],
        value_info=[info("a", [dim])],
    )
    repair_graph(graph, "f.onnx")
    for value in (*graph.input, *graph.output, *graph.value_info):
        assert not value.type.tensor_type.shape.dim[0].HasField("dim_value")


def test_every_output_is_the_result_of_one_node() -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["r"])],
        "g",
        [info("x", [1, 2])],
        [info("r", [1, 2]), info("x", [1, 2]), info("c", [2]), info("r", [1, 2])],
        [onnx.numpy_helper.from_array(np.float32([1, 2]), "c")],
    )
    repair_graph(graph, "f.onnx")
    assert [v.name for v in graph.output] == ["r", "x.1", "c.1", "r.1"]
    made = [name for node in graph.node for name in node.output]
    assert {v.name for v in graph.output} <= set(made)
    onnx.checker.check_model(helper.make_model(graph))
