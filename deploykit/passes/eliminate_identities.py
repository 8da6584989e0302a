"""Nodes that give their input unchanged, and pairs that are one.

1. Identity, Dropout at inference, Cast to the dtype that is there.
2. Reshape and Expand to the shape that is there, Transpose that moves no axis, Pad by nothing,
   Slice of the whole, Concat of one, Split into one, Resize to the size that is there, a pool with
   a 1x1 window and stride.
3. ``x + 0``, ``x 1`` where the constant does not broadcast x.
4. ``Reshape(Reshape(x)) = Reshape(x)``; ``Transpose_q(Transpose_p(x)) = Transpose(x)`` with
   ``perm[i] = p[q[i]]``: the outer node reads x, and the inner one goes if nobody else reads it.
   ``Relu(Relu(x)) = Relu(x)``; Relu before ``Clip(low >= 0)`` goes too.
5. Gather of every element of an axis in order, ``indices = 0, 1, ..., n - 1`` in any shape, is a
   Reshape (torch's exporter spells ``as_strided`` so, where a map has one pixel).

An identity between an input and an output of the graph, or between two outputs, cannot go: both
names have to exist. It becomes a Reshape to the same shape, which every target has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from deploykit.graph.editing import GraphEditor, set_attributes, set_input, set_inputs
from deploykit.graph.reading import (
    constant_array,
    constant_ints,
    constant_scalar,
    input_at,
    known_shape,
    producer_of,
    read_int,
    read_ints,
    uniform_constant,
)
from deploykit.passes.base import Findings, Pass, PassResult

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class EliminateIdentities(Pass):
    """See the module's docstring."""

    requires: ClassVar[frozenset[str]] = frozenset({"static_shapes"})
    ensures: ClassVar[frozenset[str]] = frozenset({"no_identities"})
    breaks: ClassVar[frozenset[str]] = frozenset({"no_dead_code"})

    def apply(self, model: ir.Model) -> PassResult:
        """Merge pairs and remove identities, in the graph's order."""
        findings = Findings(self.name)
        editor = GraphEditor(model.graph)
        for node in model.graph:
            if node.domain != "":
                continue
            if node.op_type in _MERGES:
                _MERGES[node.op_type](node, editor, findings)
            test = _TESTS.get(node.op_type)
            if test is not None:
                _remove(node, test(node), editor, findings)
        return findings.result()


def _remove(node: ir.Node, reason: str, editor: GraphEditor, findings: Findings) -> None:
    if reason:
        if node.op_type in _WORTH_A_NOTE:
            findings.skipped(node, reason)
        return
    op_type = node.op_type
    obstacle = editor.bypass(node)
    if not obstacle:
        findings.matched(node, f"{op_type} that changes nothing")
        return
    if op_type != "Reshape":
        shape = known_shape(node.outputs[0])
        target = editor.ints(f"{node.outputs[0].name}.shape", shape)
        node.op_type = "Reshape"
        node.attributes.clear()
        set_inputs(node, [node.inputs[0], target])
        set_attributes(node, allowzero=0)
        if len(node.outputs) > 1:
            node.resize_outputs(1)
        findings.matched(node, f"{op_type} > Reshape to the same shape: {obstacle}")
    else:
        findings.skipped(node, f"Reshape to the same shape is kept: {obstacle}")


def _same_shape(node: ir.Node) -> str:
    same = known_shape(node.inputs[0]) == known_shape(node.outputs[0])
    return "" if same else "it changes the shape"


def _always(node: ir.Node) -> str:
    return ""


def _dropout(node: ir.Node) -> str:
    if len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output()):
        return "the mask of Dropout is read"
    training = input_at(node, 2)
    if training is not None and constant_scalar(training) != 0.0:
        return "Dropout in training mode"
    return ""


def _cast(node: ir.Node) -> str:
    value, output = node.inputs[0], node.outputs[0]
    if value is not None and value.dtype is not None and value.dtype == output.dtype:
        return ""
    return f"Cast from {value.dtype if value else None} to {output.dtype}"


def _transpose(node: ir.Node) -> str:
    perm = read_ints(node, "perm", ())
    return "" if perm == tuple(range(len(perm))) and perm else "it moves an axis"


def _pad(node: ir.Node) -> str:
    pads = constant_ints(input_at(node, 1))
    return "" if pads is not None and not any(pads) else "it pads"


def _single(node: ir.Node) -> str:
    parts = node.inputs if node.op_type == "Concat" else node.outputs
    return "" if len(parts) == 1 else "it has several parts"


def _slice(node: ir.Node) -> str:
    steps = constant_ints(input_at(node, 4))
    if steps is not None and any(step < 0 for step in steps):
        return "it walks backwards"
    return _same_shape(node)


def _resize(node: ir.Node) -> str:
    # With equal lengths every coordinate transformation but a crop is the identity.
    if constant_ints(input_at(node, 3)) is None:
        return "it is not canonical"
    return _same_shape(node)


def _pool(node: ir.Node) -> str:
    plain = (
        read_ints(node, "kernel_shape", ()) == (1, 1)
        and read_ints(node, "strides", (1, 1)) == (1, 1)
        and not any(read_ints(node, "pads", ()))
        and len(node.outputs) == 1
    )
    return "" if plain else "it pools"


def _unit(node: ir.Node) -> str:
    constant = uniform_constant(input_at(node, 1))
    neutral = 0.0 if node.op_type == "Add" else 1.0
    return _same_shape(node) if constant == neutral else "its operand is not neutral"


_TESTS: dict[str, Callable[[ir.Node], str]] = {
    "Identity": _always,
    "Dropout": _dropout,
    "Cast": _cast,
    "Reshape": _same_shape,
    "Expand": _same_shape,
    "Transpose": _transpose,
    "Pad": _pad,
    "Slice": _slice,
    "Concat": _single,
    "Split": _single,
    "Resize": _resize,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "Add": _unit,
    "Mul": _unit,
}

#: Ops that are only there to be removed: the note says why one stays.
_WORTH_A_NOTE = frozenset({"Dropout", "Cast"})


def _merge_reshape(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    inner = producer_of(node.inputs[0], "Reshape")
    if inner is None:
        return
    set_input(node, 0, inner.inputs[0])
    editor.remove_if_unread(inner)
    findings.matched(node, "Reshape of a Reshape > one Reshape")


def _merge_transpose(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    inner = producer_of(node.inputs[0], "Transpose")
    if inner is None:
        return
    p, q = read_ints(inner, "perm", ()), read_ints(node, "perm", ())
    if not p or not q:
        return
    set_input(node, 0, inner.inputs[0])
    set_attributes(node, perm=tuple(p[i] for i in q))
    editor.remove_if_unread(inner)
    findings.matched(node, "Transpose of a Transpose > one Transpose")


def _merge_bound(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    inner = producer_of(node.inputs[0], "Relu")
    if inner is None:
        return
    low = 0.0 if node.op_type == "Relu" else constant_scalar(input_at(node, 1))
    if low is None or low < 0.0:
        return
    set_input(node, 0, inner.inputs[0])
    editor.remove_if_unread(inner)
    findings.matched(node, f"Relu before {node.op_type}: the {node.op_type} alone")


def _reshape_whole_gather(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    indices, source = constant_ints(input_at(node, 1)), node.inputs[0]
    if indices is None or source is None or constant_array(source) is not None:
        return
    length = known_shape(source)[read_int(node, "axis", 0)]
    if indices != tuple(range(length)):
        return
    output = node.outputs[0]
    target = editor.ints(f"{output.name}.shape", known_shape(output))
    node.op_type = "Reshape"
    node.attributes.clear()
    set_inputs(node, [source, target])
    set_attributes(node, allowzero=0)
    findings.matched(node, "Gather of a whole axis in order > Reshape")
    _merge_reshape(node, editor, findings)


_MERGES: dict[str, Callable[[ir.Node, GraphEditor, Findings], None]] = {
    "Reshape": _merge_reshape,
    "Transpose": _merge_transpose,
    "Relu": _merge_bound,
    "Clip": _merge_bound,
    "Gather": _reshape_whole_gather,
}
