"""Functions of the source become primitive ops."""

from __future__ import annotations

import onnx_ir as ir

from deploykit.graph.provenance import MODULE_KEY
from deploykit.passes.inline_functions import InlineFunctions
from deploykit_testing.graphs import assert_same_numbers, ops, parse

_HEADER = '<ir_version: 9, opset_import: ["" : 20, "local" : 1]>'
_FUNCTIONS = """
<domain: "local", opset_import: ["" : 20]> Scale <by> (x) => (y) {
    s = Constant <value_float: float = @by> () y = Mul (x, s) }
<domain: "local", opset_import: ["" : 20, "local" : 1]> Block (x) => (y) {
    a = local.Scale <by = 2.0> (x) y = Relu (a) }
"""


def _model() -> ir.Model:
    graph = "g (float[2] x) => (float[2] y) { b = local.Block (x) y = local.Scale <by = 3.0> (b) }"
    return parse(graph + _FUNCTIONS, header=_HEADER)


def test_nested_functions_are_inlined() -> None:
    before = _model()
    before.graph[0].metadata_props[MODULE_KEY] = "block.0"
    after = before.clone()
    result = InlineFunctions().apply(after)
    assert ops(after) == ["Constant", "Mul", "Relu", "Constant", "Mul"]
    assert not after.functions
    assert dict(after.opset_imports) == {"": 20}
    assert [note.node for note in result.notes] == ["local::Scale", "local::Block"]
    assert_same_numbers(before, after)
    names = [o.name for node in after.graph for o in node.outputs]
    assert len(set(names)) == len(names)
    assert names[-1] == "y"


def test_the_module_of_the_call_is_that_of_its_nodes() -> None:
    model = _model()
    model.graph[0].metadata_props[MODULE_KEY] = "block.0"
    InlineFunctions().apply(model)
    modules = {node.op_type: node.metadata_props.get(MODULE_KEY) for node in model.graph}
    assert modules["Relu"] == "block.0"


def test_nothing_to_do() -> None:
    model = parse("g (float[2] x) => (float[2] y) { y = Neg (x) }")
    assert InlineFunctions().apply(model).changed is False
