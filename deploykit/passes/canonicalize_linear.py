"""Gemm and MatMul.

1. ``Gemm`` with constant B: ``alpha A' B' + beta C = A W^T + b`` with ``W = (alpha B')^T`` and
   ``b = beta C``; ``transA`` becomes a Transpose.
2. C that is no vector of the N outputs, or is computed, becomes an Add behind the Gemm.
3. ``Gemm`` with computed B: MatMul, with Transpose, Mul and Add where they are needed.
4. ``MatMul`` of a rank-2 value by a constant matrix: Gemm with ``W = B^T``.
5. Weights that a DequantizeLinear makes of constant integers, in a model that was quantized before:
   the same, on the integers and their scales. An Add of a constant vector right behind a MatMul
   of such weights is its bias.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deploykit.graph.editing import GraphEditor, set_attributes, set_inputs
from deploykit.graph.read_qdq import integers_of, real_constant
from deploykit.graph.reading import (
    constant_array,
    input_at,
    is_constant,
    is_op,
    known_shape,
    only_reader,
    read_float,
    read_int,
)
from deploykit.passes.base import Findings
from deploykit.passes.canonical_rule import rule_for
from deploykit.tensors import Array, QuantParams

if TYPE_CHECKING:
    import onnx_ir as ir


@rule_for("Gemm")
def canonicalize_gemm(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    """Cases 1 to 3."""
    name = node.outputs[0].name
    left, right, bias = input_at(node, 0), input_at(node, 1), input_at(node, 2)
    if left is None or right is None:
        return
    if read_int(node, "transA", 0):
        rows, columns = known_shape(left)
        left = editor.node(
            "Transpose", [left], (columns, rows), like=node, attributes={"perm": [1, 0]}
        )
        findings.matched(node, "transA > Transpose")
    if _spell_quantized(node, editor, findings, left):
        return
    weights = constant_array(right)
    if weights is None:
        _to_matmul(node, editor, findings, left, right)
        return
    alpha, beta = read_float(node, "alpha", 1.0), read_float(node, "beta", 1.0)
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


def _spell_quantized(
    node: ir.Node, editor: GraphEditor, findings: Findings, left: ir.Value
) -> bool:
    # Case 5, of a Gemm.
    alpha, beta = read_float(node, "alpha", 1.0), read_float(node, "beta", 1.0)
    held = integers_of(node.inputs[1])
    if held is None or alpha <= 0.0:
        return False
    right, bias = input_at(node, 1), input_at(node, 2)
    transposed = bool(read_int(node, "transB", 0))
    if not transposed or alpha != 1.0:
        right = _output_by_input(node, editor, *held, transposed=transposed, alpha=alpha)
        findings.matched(node, "alpha, transB > the integers of the weights and their scales")
    reals = real_constant(bias)
    columns = known_shape(node.outputs[0])[1]
    outer = None
    if bias is not None and (reals is None or reals.shape != (columns,) or beta != 1.0):
        if reals is not None and not is_constant(bias):
            bias = editor.constant(f"{node.outputs[0].name}.bias", reals)
        bias = _canonical_bias(node, editor, bias, beta)
        if bias is not None and known_shape(bias) != (columns,):
            bias, outer = None, bias
    set_inputs(node, [left, right] if bias is None else [left, right, bias])
    set_attributes(node, alpha=1.0, beta=1.0, transA=0, transB=1)
    if outer is not None:
        editor.follow(node, "Add", [outer])
        findings.matched(node, "a C that is no vector of the outputs > Add")
    return True


def _output_by_input(
    node: ir.Node,
    editor: GraphEditor,
    integers: Array,
    params: QuantParams,
    *,
    transposed: bool,
    alpha: float = 1.0,
) -> ir.Value:
    """A DequantizeLinear of weights as (outputs, inputs), alpha times as large."""
    name = f"{node.outputs[0].name}.weight"
    matrix = integers if transposed else integers.T
    scale = np.asarray(params.scale, np.float32) * np.float32(alpha)
    zero = np.asarray(params.zero_point, integers.dtype)
    attributes = {}
    if params.axis is None:
        scale, zero = scale.reshape(-1)[:1].reshape(()), zero.reshape(-1)[:1].reshape(())
    else:
        attributes["axis"] = params.axis if transposed else 1 - params.axis
    inputs = [
        editor.constant(f"{name}_quantized", matrix),
        editor.constant(f"{name}_scale", scale),
        editor.constant(f"{name}_zero_point", zero),
    ]
    return editor.node(
        "DequantizeLinear", inputs, matrix.shape, like=node, name=name, attributes=attributes
    )


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
    """Cases 4 and 5."""
    left, right = node.inputs
    held = integers_of(right)
    if left is not None and held is not None and held[0].ndim == len(known_shape(left)) == 2:
        bias = _bias_behind(node)
        weights_of_node = _output_by_input(node, editor, *held, transposed=False)
        node.op_type = "Gemm"
        set_inputs(node, [left, weights_of_node] if bias is None else [left, weights_of_node, bias])
        set_attributes(node, alpha=1.0, beta=1.0, transA=0, transB=1)
        if bias is not None:
            add = only_reader(node.outputs[0])
            assert add is not None
            add.op_type = "Identity"
            set_inputs(add, [node.outputs[0]])
        findings.matched(node, "MatMul by constant integers > Gemm")
        return
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


def _bias_behind(node: ir.Node) -> ir.Value | None:
    """The constant vector that an Add adds to all that a MatMul gives; None for anything else."""
    add = only_reader(node.outputs[0])
    if not is_op(add, "Add") or add is None:
        return None
    (other,) = [v for v in add.inputs if v is not node.outputs[0]] or (None,)
    reals = real_constant(other)
    return other if reals is not None and reals.shape == known_shape(node.outputs[0])[1:] else None
