"""Choosing by a mask that is known beforehand, and casts to what a value is already.

1. ``Where`` whose condition is constant and the same everywhere: the one branch.
2. A constant ``v`` where the mask says so, x elsewhere: ``x m + v (1 - m)`` with m of 0 and 1; if v
   is infinite or nearly so, where that product is none, ``Min(x, u)`` with u of v and the largest
   float (``Max`` for large positive v).
3. Two computed branches: ``a m + b (1 - m)``, which is a or b exactly while both are finite.
4. ``CastLike`` to the type that the value has: nothing.

Reason: a condition that is computed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deploykit.graph.editing import GraphEditor, set_inputs
from deploykit.graph.reading import constant_array, known_shape
from deploykit.passes.base import Findings
from deploykit.passes.canonical_rule import rule_for

if TYPE_CHECKING:
    import onnx_ir as ir

#: Beyond this a number stands for infinity: a mask of attention scores.
_HUGE = 1e30
_LARGEST = float(np.finfo(np.float32).max)


@rule_for("Where")
def canonicalize_where(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    """Cases 1 to 3."""
    condition, chosen, other = node.inputs
    mask = constant_array(condition)
    if mask is None or chosen is None or other is None or chosen.dtype != node.outputs[0].dtype:
        findings.skipped(node, "the condition is computed")
        return
    if chosen.dtype is None or chosen.dtype.numpy() != np.float32:
        findings.skipped(node, "it chooses among integers")
        return
    shape = known_shape(node.outputs[0])
    if mask.all() or not mask.any():
        branch = chosen if mask.all() else other
        node.op_type = "Identity" if known_shape(branch) == shape else "Expand"
        sizes = [editor.ints("shape", shape)] if node.op_type == "Expand" else []
        set_inputs(node, [branch, *sizes])
        findings.matched(node, "Where by a uniform condition > its branch")
        return
    constants = constant_array(chosen), constant_array(other)
    if constants[0] is not None:
        _fill(node, other, mask, constants[0], editor, findings)
    elif constants[1] is not None:
        _fill(node, chosen, ~mask, constants[1], editor, findings)
    else:
        parts = [
            _masked(node, value, keep, editor) for value, keep in ((chosen, mask), (other, ~mask))
        ]
        node.op_type = "Add"
        set_inputs(node, parts)
        findings.matched(node, "Where by a constant condition > two products and a sum")


def _fill(
    node: ir.Node,
    value: ir.Value,
    filled: np.ndarray,
    content: np.ndarray,
    editor: GraphEditor,
    findings: Findings,
) -> None:
    """Case 2: ``content`` where ``filled``, the value elsewhere."""
    name = node.outputs[0].name
    places = np.broadcast_arrays(filled, content)
    contents = places[1][places[0]]
    if (np.abs(contents) >= _HUGE).all() and len(set(np.sign(contents))) == 1:
        lowest = contents[0] < 0
        bounds = np.where(
            filled, np.clip(content, -_LARGEST, _LARGEST), _LARGEST if lowest else -_LARGEST
        )
        node.op_type = "Min" if lowest else "Max"
        set_inputs(node, [value, editor.constant(f"{name}.bounds", bounds.astype(np.float32))])
        findings.matched(node, f"Where by a constant condition > {node.op_type}")
        return
    if not np.isfinite(contents).all():
        findings.skipped(node, "its constant is infinite in places")
        return
    kept = _masked(node, value, ~filled, editor)
    offset = np.where(filled, content, 0).astype(np.float32)
    node.op_type = "Add"
    set_inputs(node, [kept, editor.constant(f"{name}.offset", offset)])
    findings.matched(node, "Where by a constant condition > a product and a sum")


def _masked(node: ir.Node, value: ir.Value, keep: np.ndarray, editor: GraphEditor) -> ir.Value:
    """The value times 1 where it is kept, 0 elsewhere."""
    name = f"{node.outputs[0].name}.mask"
    factor = editor.constant(name, keep.astype(np.float32))
    shape = np.broadcast_shapes(known_shape(value), keep.shape)
    return editor.node("Mul", [value, factor], shape, like=node)


@rule_for("CastLike")
def canonicalize_cast_like(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    """Case 4."""
    value, like = node.inputs
    if value is None or like is None or value.dtype is None or value.dtype != like.dtype:
        findings.skipped(node, "it changes the type")
        return
    node.op_type = "Identity"
    set_inputs(node, [value])
    findings.matched(node, "CastLike to its own type > nothing")
