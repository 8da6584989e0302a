"""Normalizations over axes, written out in ops that every target has.

1.  LayerNormalization over the axes from ``axis`` on (Ba et al. 2016, arXiv:1607.06450):
    ``c = x - mean(x)``, ``c / sqrt(mean(c c) + epsilon) scale + bias``. The squares are of what is
    centred, so that a large mean costs no precision.
2.  InstanceNormalization (Ulyanov et al. 2016, arXiv:1607.08022): the same over the pixels of each
    channel, with a scale and a bias a channel.
    torch writes GroupNorm (Wu and He 2018, arXiv:1803.08494) as one of these between two Reshapes.
3.  ``ReduceL2 = sqrt(sum(x x))``; LpNormalization by the norm of order 1 or 2, where an element of
    a zero vector stays zero.

Reasons: the mean or the deviation is read too; a scale that is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from deploykit.graph.editing import GraphEditor
from deploykit.graph.reading import (
    constant_array,
    constant_ints,
    input_at,
    known_shape,
    read_float,
    read_int,
)
from deploykit.passes.base import Findings
from deploykit.passes.canonical_rule import rule_for

if TYPE_CHECKING:
    import onnx_ir as ir

#: Below it a norm is taken for that of a zero vector; float32's smallest normal number is 1.2e-38.
_SMALLEST_NORM = 1e-30


@rule_for("LayerNormalization")
def canonicalize_layer_norm(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    """Case 1."""
    if any(o.uses() or o.is_graph_output() for o in node.outputs[1:]):
        findings.skipped(node, "the mean or the deviation is read too")
        return
    source = node.inputs[0]
    assert source is not None
    shape = known_shape(source)
    axes = range(read_int(node, "axis", -1) % len(shape), len(shape))
    result = _normalized(node, editor, source, axes)
    _finish(node, editor, findings, result, input_at(node, 1), input_at(node, 2))


@rule_for("InstanceNormalization")
def canonicalize_instance_norm(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    """Case 2."""
    source = node.inputs[0]
    scales = [constant_array(v) for v in node.inputs[1:3]]
    if source is None or any(s is None for s in scales):
        findings.skipped(node, "its scale or bias is computed")
        return
    rank = len(known_shape(source))
    result = _normalized(node, editor, source, range(2, rank))
    affine = [_along_channels(node, editor, s, rank) for s in scales if s is not None]
    _finish(node, editor, findings, result, *affine)


@rule_for("ReduceL2")
def canonicalize_reduce_l2(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    """Case 3."""
    source, axes = node.inputs[0], constant_ints(input_at(node, 1))
    if source is None or (axes is None and input_at(node, 1) is not None):
        findings.skipped(node, "the axes are computed")
        return
    shape = known_shape(source)
    chosen = sorted(a % len(shape) for a in axes) if axes else list(range(len(shape)))
    if not axes and read_int(node, "noop_with_empty_axes", 0):
        findings.skipped(node, "no axes")
        return
    keepdims = read_int(node, "keepdims", 1)
    norm = _norm(node, editor, source, chosen, keepdims)
    _finish(node, editor, findings, norm, None, None)


@rule_for("LpNormalization")
def canonicalize_lp_normalization(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    """Case 3."""
    source = node.inputs[0]
    assert source is not None
    shape = known_shape(source)
    axes = [read_int(node, "axis", -1) % len(shape)]
    if read_int(node, "p", 2) == 2:
        norm = _norm(node, editor, source, axes, 1)
    else:
        magnitude = editor.node("Abs", [source], shape, like=node)
        norm = _reduced("ReduceSum", node, editor, magnitude, axes, 1)
    least = editor.constant(f"{node.outputs[0].name}.least", np.array(_SMALLEST_NORM, np.float32))
    norm = editor.node("Max", [norm, least], known_shape(norm), like=node)
    result = editor.node("Div", [source, norm], shape, like=node)
    _finish(node, editor, findings, result, None, None)


def _normalized(
    node: ir.Node, editor: GraphEditor, source: ir.Value, axes: Sequence[int]
) -> ir.Value:
    """Centred over ``axes``, divided by the deviation there."""
    shape, name = known_shape(source), node.outputs[0].name
    mean = _reduced("ReduceMean", node, editor, source, axes, 1)
    centred = editor.node("Sub", [source, mean], shape, like=node, name=f"{name}.centred")
    squares = editor.node("Mul", [centred, centred], shape, like=node, name=f"{name}.squares")
    variance = _reduced("ReduceMean", node, editor, squares, axes, 1)
    small = known_shape(variance)
    epsilon = editor.constant(
        f"{name}.epsilon", np.array(read_float(node, "epsilon", 1e-5), np.float32)
    )
    raised = editor.node("Add", [variance, epsilon], small, like=node)
    deviation = editor.node("Sqrt", [raised], small, like=node, name=f"{name}.deviation")
    return editor.node("Div", [centred, deviation], shape, like=node, name=f"{name}.normalized")


def _norm(
    node: ir.Node, editor: GraphEditor, source: ir.Value, axes: Sequence[int], keepdims: int
) -> ir.Value:
    squares = editor.node("Mul", [source, source], known_shape(source), like=node)
    total = _reduced("ReduceSum", node, editor, squares, axes, keepdims)
    return editor.node("Sqrt", [total], known_shape(total), like=node)


def _reduced(
    op_type: str,
    node: ir.Node,
    editor: GraphEditor,
    source: ir.Value,
    axes: Sequence[int],
    keepdims: int,
) -> ir.Value:
    shape = known_shape(source)
    left = [1 if a in axes else d for a, d in enumerate(shape) if keepdims or a not in axes]
    constant = editor.ints(f"{node.outputs[0].name}.axes", axes)
    attributes = {"keepdims": keepdims}
    return editor.node(op_type, [source, constant], left, like=node, attributes=attributes)


def _along_channels(node: ir.Node, editor: GraphEditor, numbers: np.ndarray, rank: int) -> ir.Value:
    shaped = np.asarray(numbers, np.float32).reshape(-1, *[1] * (rank - 2))
    return editor.constant(f"{node.outputs[0].name}.affine", shaped)


def _finish(
    node: ir.Node,
    editor: GraphEditor,
    findings: Findings,
    result: ir.Value,
    scale: ir.Value | None,
    bias: ir.Value | None,
) -> None:
    """Scale and bias, where they change anything, and the place of ``node`` in the graph."""
    shape, op_type = known_shape(result), node.op_type
    for op, operand, neutral in (("Mul", scale, 1.0), ("Add", bias, 0.0)):
        array = constant_array(operand)
        if operand is not None and (array is None or (array != neutral).any()):
            result = editor.node(op, [result, operand], shape, like=node)
    editor.take_over(node.outputs[0], result)
    editor.graph.remove(node, safe=True)
    findings.matched(result.name or "", f"{op_type} > means, a root and a division")
