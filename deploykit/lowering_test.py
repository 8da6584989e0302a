from __future__ import annotations

import onnx_ir as ir
import pytest

from deploykit.errors import UnsupportedOp, UnsupportedOpsError
from deploykit.graph.provenance import MODULE_KEY
from deploykit.lowering import LoweringTable


def _node(op_type: str, module: str = "") -> ir.Node:
    node = ir.Node("", op_type, [], name=f"{op_type.lower()}_0")
    if module:
        node.metadata_props[MODULE_KEY] = module
    return node


def test_all_missing_ops_are_reported_at_once_with_their_modules() -> None:
    table: LoweringTable = LoweringTable("demo")
    table.register("Relu")(lambda node: None)
    table.refuse("Einsum", "no kernel takes it", "write it as MatMul")
    nodes = [_node("Relu"), _node("Einsum", "blocks.3.attn"), _node("FFT")]
    with pytest.raises(UnsupportedOpsError) as caught:
        table.check(nodes)
    assert [op.op_type for op in caught.value.ops] == ["Einsum", "FFT"]
    assert caught.value.exit_code == 3
    text = str(caught.value)
    assert "2 nodes" in text
    assert "module 'blocks.3.attn'): no kernel takes it" in text
    assert "write it as MatMul" in text


def test_a_graph_that_is_covered_passes() -> None:
    table: LoweringTable = LoweringTable("demo")

    @table.register("Relu", "Clip")
    def lower(node: ir.Node) -> str:
        return node.op_type

    table.check([_node("Relu"), _node("Clip")])
    assert table.function_for(_node("Clip"))(_node("Clip")) == "Clip"


def test_registering_twice_is_an_error() -> None:
    table: LoweringTable = LoweringTable("demo")
    table.register("Relu")(lambda node: None)
    with pytest.raises(ValueError, match="registered twice"):
        table.register("Relu")(lambda node: None)
    with pytest.raises(ValueError, match="registered twice"):
        table.refuse("Relu", "no")


def test_domains_are_kept_apart() -> None:
    table: LoweringTable = LoweringTable("demo")
    table.register("Silu", domain="deploykit")(lambda node: None)
    assert [op.op_type for op in table.missing([_node("Silu")])] == ["Silu"]


def test_one_cause_is_told_once() -> None:
    reason = "'{}' has shape (2, {}): batch 2"
    alike = [
        UnsupportedOp("Relu", f"n{i}", "head" if i == 0 else "", reason.format(i, i), "export it")
        for i in range(216)
    ]
    text = str(UnsupportedOpsError("ncnn", [*alike, UnsupportedOp("Loop", "l", "", "a loop")]))
    assert text.splitlines() == [
        "217 nodes cannot be lowered to ncnn:",
        "  Relu, 216 nodes ('n0' in module 'head', 'n1', 'n2', ...): '0' has shape (2, 0): batch 2",
        "      what to do: export it",
        "  Loop (node 'l'): a loop",
    ]
