"""Transposes move towards the outputs, until they meet the ones that undo them.

A graph that comes from an NHWC framework holds its convolutions between two transposes, with NHWC
arithmetic in between. With ``T(x)[i0, i1, ...]`` the transpose of x by ``perm``, axis ``a`` of
``T(x)`` being axis ``perm[a]`` of x:

1. ``f(T(x)) = T(f(x))`` for what works element by element; ``f(T(x), T(y)) = T(f(x, y))``, where a
   constant operand is transposed back, and one whose elements keep their order (one pixel, one
   channel) is reshaped.
2. ``reduce(T(x), axes) = T(reduce(x, perm[axes]))``; without ``keepdims`` the transpose goes where
   the axes that are left stand in order.
3. Concat, Split, Slice, Pad, Softmax, Resize, Gather, Expand: the same on ``perm[axis]``.
4. ``Reshape(T(x)) = Reshape(x)`` where T moves no element; ``T(Reshape(x)) = Reshape(x)`` likewise.
5. ``Gemm(Reshape(T(x)), W) = Gemm(Reshape(x), W')`` where the Reshape flattens every sample: the
   columns of W' are those of W in x's order.

6. Two that come to stand side by side become one, or none. A transpose that meets anything else
   stays where it then is.

Reasons: an operand is not transposed likewise; a Reshape that cuts across moved axes; a quantized
value with one scale a channel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from deploykit.graph.editing import GraphEditor, set_attributes, set_input
from deploykit.graph.ops import BINARY_OPS, QDQ_OPS, REDUCTIONS, UNARY_OPS
from deploykit.graph.reading import (
    constant_array,
    constant_ints,
    input_at,
    is_op,
    known_shape,
    producer_of,
    read_int,
    read_ints,
)
from deploykit.passes.base import Findings, Pass, PassResult

if TYPE_CHECKING:
    import onnx_ir as ir

Perm = tuple[int, ...]


@dataclass(frozen=True)
class SinkTransposes(Pass):
    """See the module's docstring."""

    requires: ClassVar[frozenset[str]] = frozenset({"static_shapes", "canonical"})
    breaks: ClassVar[frozenset[str]] = frozenset({"no_dead_code", "no_identities"})

    def apply(self, model: ir.Model) -> PassResult:
        """Move every transpose as far as it goes, in the graph's order."""
        findings = Findings(self.name)
        editor = GraphEditor(model.graph)
        for node in list(model.graph):
            if is_op(node, "Transpose"):
                _merge(node, editor, findings)
                continue
            perm = _perm_above(node)
            rule = _RULES.get(node.op_type) if node.domain == "" else None
            if perm is None or rule is None:
                continue
            above = [t for t in map(_transpose_above, node.inputs) if t is not None]
            reason = rule(node, perm, editor)
            if reason:
                findings.skipped(node, reason)
                continue
            editor.remove_if_unread(*dict.fromkeys(above))
            findings.matched(node, f"a Transpose moved from before {node.op_type} to behind it")
        return findings.result()


def _transpose_above(value: ir.Value | None) -> ir.Node | None:
    return producer_of(value, "Transpose")


def _perm_above(node: ir.Node) -> Perm | None:
    """The permutation of the first transposed operand; None if there is none."""
    for value in node.inputs:
        above = _transpose_above(value)
        if above is not None:
            return read_ints(above, "perm", ())
    return None


def _inverse(perm: Perm) -> Perm:
    return tuple(int(i) for i in np.argsort(perm))


def moves_elements(shape: Sequence[int], perm: Perm) -> bool:
    """Whether a transpose changes the order of the elements: axes of length 1 may go anywhere."""
    long_axes = [axis for axis in perm if shape[axis] != 1]
    return long_axes != sorted(long_axes)


def _source_of(
    value: ir.Value | None, perm: Perm, reader: ir.Node, editor: GraphEditor
) -> ir.Value | None:
    """``x`` with ``T(x) = value``; None where only another transpose would give it."""
    above = _transpose_above(value)
    if value is None or above is not None:
        same = above is not None and read_ints(above, "perm", ()) == perm
        return above.inputs[0] if above is not None and same else None
    shape = known_shape(value)
    if len(shape) > len(perm):
        return None
    whole, back = (1,) * (len(perm) - len(shape)) + shape, _inverse(perm)
    array = constant_array(value)
    if array is not None:
        if array.size == 1:
            return value
        moved = array.reshape(whole).transpose(back)
        while moved.shape[0] == 1:  # broadcasting puts it back
            moved = moved[0]
        return editor.constant(f"{value.name}.moved", moved)
    if moves_elements(whole, back):
        return None
    target = tuple(whole[axis] for axis in back)
    return editor.node(
        "Reshape",
        [value, editor.ints(f"{value.name}.moved.shape", target)],
        target,
        like=reader,
        attributes={"allowzero": 0},
        dtype=value.dtype,
        name=f"{value.name}.moved",
    )


def _append_transpose(node: ir.Node, index: int, perm: Perm, editor: GraphEditor) -> None:
    """What ``node`` gives is now ``x``: its readers get ``T(x)``.

    The value that is computed keeps its name, unless the graph's output has it.
    """
    shape = known_shape(node.outputs[index])
    inner = node.outputs[index]
    editor.set_shape(inner, tuple(shape[axis] for axis in _inverse(perm)))
    below = editor.follow(
        node, "Transpose", shape=shape, attributes={"perm": list(perm)}, output=index
    )
    outer = below.outputs[0]
    if not outer.is_graph_output():
        name, moved = outer.name, inner.name
        inner.name = outer.name = None
        inner.name, outer.name = name, moved


def _elementwise(node: ir.Node, perm: Perm, editor: GraphEditor) -> str:
    # Case 1.
    if len(known_shape(node.outputs[0])) != len(perm):
        return "an operand has more axes than the transposed one"
    sources = [_source_of(value, perm, node, editor) for value in node.inputs]
    if any(s is None and v is not None for s, v in zip(sources, node.inputs, strict=True)):
        return "an operand is not transposed likewise"
    for index, source in enumerate(sources):
        set_input(node, index, source)
    _append_transpose(node, 0, perm, editor)
    return ""


def _quantize(node: ir.Node, perm: Perm, editor: GraphEditor) -> str:
    if any(known_shape(v) != () for v in node.inputs[1:] if v is not None):
        return "one scale a channel"
    return _unary(node, perm, editor)


def _unary(node: ir.Node, perm: Perm, editor: GraphEditor) -> str:
    """The first operand alone is data: the others are scalars, or spelled anew by the caller."""
    above = _transpose_above(node.inputs[0])
    if above is None:
        return "an operand is not transposed likewise"
    set_input(node, 0, above.inputs[0])
    for index in range(len(node.outputs)):
        _append_transpose(node, index, perm, editor)
    return ""


def _reduce(node: ir.Node, perm: Perm, editor: GraphEditor) -> str:
    # Case 2.
    axes = constant_ints(input_at(node, 1))
    above = _transpose_above(node.inputs[0])
    if axes is None or above is None:
        return "the axes are computed"
    moved = sorted(perm[a] for a in axes)
    set_input(node, 1, editor.ints(f"{node.outputs[0].name}.axes", moved))
    if read_int(node, "keepdims", 1):
        return _unary(node, perm, editor)
    set_input(node, 0, above.inputs[0])
    left = [perm[a] for a in range(len(perm)) if a not in axes]
    order = tuple(sorted(left).index(a) for a in left)
    if order != tuple(range(len(order))):
        _append_transpose(node, 0, order, editor)
    return ""


def _axis(node: ir.Node, perm: Perm, editor: GraphEditor) -> str:
    # Case 3: Split, Softmax, Gather.
    if node.op_type == "Gather" and len(known_shape(input_at(node, 1))) != 1:
        return "Gather changes the number of axes"
    reason = _unary(node, perm, editor)
    if not reason:
        set_attributes(node, axis=perm[read_int(node, "axis", 0)])
    return reason


def _concat(node: ir.Node, perm: Perm, editor: GraphEditor) -> str:
    axis = perm[read_int(node, "axis", 0)]
    if any(constant_array(v) is not None for v in node.inputs):
        return "an operand is a constant"
    reason = _elementwise(node, perm, editor)
    if not reason:
        set_attributes(node, axis=axis)
    return reason


def _slice(node: ir.Node, perm: Perm, editor: GraphEditor) -> str:
    numbers = [constant_ints(input_at(node, i)) for i in (1, 2, 3, 4)]
    if any(n is None for n in numbers):
        return "its bounds are computed"
    starts, ends, axes, steps = (n for n in numbers if n is not None)
    reason = _unary(node, perm, editor)
    if reason:
        return reason
    moved = sorted(zip((perm[a] for a in axes), starts, ends, steps, strict=True))
    name = node.outputs[0].name
    for index, role, column in ((1, "starts", 1), (2, "ends", 2), (3, "axes", 0), (4, "steps", 3)):
        set_input(node, index, editor.ints(f"{name}.{role}", (row[column] for row in moved)))
    return ""


def _per_axis_input(role: str, index: int, copies: int = 1) -> Callable[..., str]:
    """Pad, Resize, Expand: a constant input has ``copies`` numbers for every axis."""

    def rule(node: ir.Node, perm: Perm, editor: GraphEditor) -> str:
        numbers = constant_ints(input_at(node, index))
        rank = len(perm)
        if numbers is None or len(numbers) != copies * rank:
            return f"its {role} do not name every axis"
        reason = _unary(node, perm, editor)
        if not reason:
            back = _inverse(perm)
            moved = [numbers[c * rank + axis] for c in range(copies) for axis in back]
            set_input(node, index, editor.ints(f"{node.outputs[0].name}.{role}", moved))
        return reason

    return rule


def _reshape(node: ir.Node, perm: Perm, editor: GraphEditor) -> str:
    # Cases 4 and 5.
    above = _transpose_above(node.inputs[0])
    assert above is not None
    source = above.inputs[0]
    if not moves_elements(known_shape(source), perm):
        set_input(node, 0, source)
        return ""
    shape, output = known_shape(node.inputs[0]), node.outputs[0]
    readers = [use.node for use in output.uses()]
    flattens = perm[0] == 0 and known_shape(output) == (shape[0], int(np.prod(shape[1:])))
    if not flattens or output.is_graph_output() or not readers:
        return "the Reshape cuts across moved axes"
    weights = [constant_array(input_at(reader, 1)) for reader in readers]
    if not all(is_op(r, "Gemm") and r.inputs[0] is output for r in readers) or any(
        w is None for w in weights
    ):
        return "what is flattened is not read by linear layers alone"
    back = _inverse(perm)
    for reader, matrix in zip(readers, weights, strict=True):
        assert matrix is not None
        columns = matrix.reshape(-1, *shape[1:]).transpose(0, *back[1:]).reshape(matrix.shape)
        set_input(reader, 1, editor.constant(f"{reader.outputs[0].name}.weight", columns))
    set_input(node, 0, source)
    return ""


def _merge(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    # Cases 4 and 6.
    outer = read_ints(node, "perm", ())
    above = _transpose_above(node.inputs[0])
    if above is not None:
        inner = read_ints(above, "perm", ())
        perm = tuple(inner[axis] for axis in outer)
        set_input(node, 0, above.inputs[0])
        set_attributes(node, perm=perm)
        findings.matched(node, "a Transpose of a Transpose > one, or none")
        if perm == tuple(range(len(perm))):
            editor.bypass(node)  # between an input and an output it stays, as an identity
        editor.remove_if_unread(above)
        return
    above = producer_of(node.inputs[0], "Reshape")
    if above is None or moves_elements(known_shape(node.inputs[0]), outer):
        return
    shape = known_shape(node.outputs[0])
    node.op_type = "Reshape"
    node.attributes.clear()
    set_input(node, 0, above.inputs[0])
    set_input(node, 1, editor.ints(f"{node.outputs[0].name}.shape", shape))
    set_attributes(node, allowzero=0)
    editor.remove_if_unread(above)
    findings.matched(node, "a Transpose of a Reshape that moves no element > Reshape")


_RULES: dict[str, Callable[[ir.Node, Perm, GraphEditor], str]] = {
    **dict.fromkeys((*sorted(UNARY_OPS), "Cast", "Identity"), _unary),
    **dict.fromkeys(sorted(BINARY_OPS), _elementwise),
    **dict.fromkeys(sorted(QDQ_OPS), _quantize),
    **dict.fromkeys(sorted(REDUCTIONS), _reduce),
    **dict.fromkeys(("Gather", "Softmax", "Split"), _axis),
    "Concat": _concat,
    "Expand": _per_axis_input("shape", 1),
    "Pad": _per_axis_input("pads", 1, copies=2),
    "Reshape": _reshape,
    "Resize": _per_axis_input("sizes", 3),
    "Slice": _slice,
}
