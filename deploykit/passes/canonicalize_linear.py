"""Gemm and MatMul.

1. ``Gemm`` with constant B: ``alpha A' B' + beta C = A W^T + b`` with ``W = (alpha B')^T`` and
   ``b = beta C``; ``transA`` becomes a Transpose.
2. C that is no vector of the N outputs, or is computed, becomes an Add behind the Gemm.
3. ``Gemm`` with computed B: MatMul, with Transpose, Mul and Add where they are needed.
4. ``MatMul`` of a rank-2 value by a constant matrix: Gemm with ``W = B^T``.
5. A Gemm whose weights come from a DequantizeLinear, in a model that was quantized before, stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deploykit.graph.editing import GraphEditor, set_attributes, set_inputs
from deploykit.graph.reading import (
    constant_array,
    input_at,
    known_shape,
    producer_of,
    read_float,
    read_int,
)
from deploykit.passes.base import Findings
from deploykit.passes.canonical_rule import rule_for

if TYPE_CHECKING:
    import onnx_ir as ir


@rule_for("Gemm")
def canonicalize_gemm(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    """Cases 1 to 3."""
    alpha, beta = read_float(node, "alpha", 1.0), read_float(node, "beta", 1.0)
    name = node.outputs[0].name
    left, right, bias = input_at(node, 0), input_at(node, 1), input_at(node, 2)
    if left is None or right is None or _is_quantized(node, alpha, beta):
        return
    if read_int(node, "transA", 0):
        rows, columns = known_shape(left)
        left = editor.node(
            "Transpose", [left], (columns, rows), like=node, attributes={"perm": [1, 0]}
        )
        findings.matched(node, "transA > Transpose")
    weights = constant_array(right)
    if weights is None:
        _to_matmul(node, editor, findings, left, right)
        return
    outer = _canonical_bias(node, editor, bias, beta)
    transposed = bool(read_int(node, "transB", 0))
    if not transposed or alpha != 1.0:
        matrix = weights if transposed else weights.T
        right = editor.constant(
            f"{name}.weight", (matrix * np.float32(alpha)).astype(weights.dtype)
        )
        findings.matched(node, "alpha, transB > the weights")
    inner_bias = outer if outer is not None and constant_array(outer) is not None else None
    set_inputs(node, [left, right, inner_bias] if inner_bias is not None else [left, right])
    set_attributes(node, alpha=1.0, beta=1.0, transA=0, transB=1)
    if outer is not None and inner_bias is None:
        editor.follow(node, "Add", [outer])
        findings.matched(node, "a computed C > Add")
    elif outer is not None and known_shape(outer) != (known_shape(node.outputs[0])[1],):
        set_inputs(node, [left, right])
        editor.follow(node, "Add", [outer])
        findings.matched(node, "a C that is no vector of the outputs > Add")


def _is_quantized(node: ir.Node, alpha: float, beta: float) -> bool:
    # Case 5.
    spelled = alpha == beta == 1.0 and not read_int(node, "transA", 0)
    if producer_of(node.inputs[1], "DequantizeLinear") is None or not spelled:
        return False
    if not read_int(node, "transB", 0):
        return False
    set_attributes(node, alpha=1.0, beta=1.0, transA=0, transB=1)
    return True


def _canonical_bias(
    node: ir.Node, editor: GraphEditor, bias: ir.Value | None, beta: float
) -> ir.Value | None:
    # beta * C, as a vector of the outputs where C is one.
    if bias is None or beta == 0.0:
        return None
    array = constant_array(bias)
    name = node.outputs[0].name
    if array is None:
        if beta == 1.0:
            return bias
        factor = editor.constant(f"{name}.beta", np.array(beta, dtype=np.float32))
        return editor.node("Mul", [bias, factor], known_shape(bias), like=node)
    columns = known_shape(node.outputs[0])[1]
    scaled = array if beta == 1.0 else (array * np.float32(beta)).astype(array.dtype)
    if array.shape == (columns,) and beta == 1.0:
        return bias
    if all(d == 1 for d in array.shape[:-1]):
        row = scaled.reshape(-1)
        return editor.constant(f"{name}.bias", np.broadcast_to(row, (columns,)).copy())
    return editor.constant(f"{name}.bias", scaled)


def _to_matmul(
    node: ir.Node, editor: GraphEditor, findings: Findings, left: ir.Value, right: ir.Value
) -> None:
    alpha, beta = read_float(node, "alpha", 1.0), read_float(node, "beta", 1.0)
    shape = known_shape(node.outputs[0])
    if read_int(node, "transB", 0):
        columns, inner = known_shape(right)
        right = editor.node(
            "Transpose", [right], (inner, columns), like=node, attributes={"perm": [1, 0]}
        )
    result = editor.node("MatMul", [left, right], shape, like=node)
    if alpha != 1.0:
        factor = editor.constant(f"{result.name}.alpha", np.array(alpha, dtype=np.float32))
        result = editor.node("Mul", [result, factor], shape, like=node)
    bias = _canonical_bias(node, editor, input_at(node, 2), beta)
    if bias is not None:
        result = editor.node("Add", [result, bias], shape, like=node)
    editor.take_over(node.outputs[0], result)
    editor.graph.remove(node, safe=True)
    findings.matched(node, "Gemm of computed operands > MatMul")


@rule_for("MatMul")
def canonicalize_matmul(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    """Case 4."""
    left, right = node.inputs
    weights = constant_array(right)
    if left is None or weights is None:
        return
    if weights.ndim != 2 or len(known_shape(left)) != 2:
        findings.skipped(
            node,
            f"a constant of rank {weights.ndim} times a value of rank {len(known_shape(left))}",
        )
        return
    right = editor.constant(f"{node.outputs[0].name}.weight", weights.T)
    node.op_type = "Gemm"
    set_inputs(node, [left, right])
    set_attributes(node, alpha=1.0, beta=1.0, transA=0, transB=1)
    findings.matched(node, "MatMul by a constant matrix > Gemm")
