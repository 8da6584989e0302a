"""The ops that this target carries: the canonical set itself, as it is ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploykit.graph.ops import CANONICAL_OPS, QDQ_OPS
from deploykit.lowering import LoweringTable

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir

TABLE: LoweringTable[Callable[[ir.Node], ir.Node]] = LoweringTable("onnx")


def keep_node(node: ir.Node) -> ir.Node:
    """The node itself; a function of ours is replaced by its body before."""
    return node


for _op in CANONICAL_OPS:
    TABLE.register(_op.op_type, domain=_op.domain)(keep_node)
TABLE.register("GlobalAveragePool", *sorted(QDQ_OPS))(keep_node)
