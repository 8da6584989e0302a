"""Gather and its kin with constant indices.

1. Gather of consecutive indices: Slice; of one scalar index: Slice and Reshape; otherwise the
   indices are made not negative.
2. GatherND over the first k axes: those axes are joined by a Reshape, and one Gather picks from
   them (ONNX operator GatherND: ``out[i] = data[indices[i, 0], ..., indices[i, k - 1]]``).
3. Gather behind a Transpose that it reads alone: the Gather goes first,
   ``Gather_a(Transpose_p(x)) = Transpose_p(Gather_p[a](x))``, so that the pair of transposes around
   it, which exporters write, meets and vanishes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deploykit.graph.editing import GraphEditor, drop_attributes, set_attributes, set_inputs
from deploykit.graph.reading import (
    constant_array,
    known_shape,
    only_reader,
    producer_of,
    read_int,
    read_ints,
)
from deploykit.passes.base import Findings
from deploykit.passes.canonical_rule import rule_for
from deploykit.passes.canonicalize_shapes import write_slice

if TYPE_CHECKING:
    import onnx_ir as ir


@rule_for("Gather")
def canonicalize_gather(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    """Cases 1 and 3."""
    shape, indices = known_shape(node.inputs[0]), constant_array(node.inputs[1])
    if indices is None:
        findings.skipped(node, "the indices of Gather are computed")
        return
    axis = read_int(node, "axis", 0) % len(shape)
    places = np.where(indices < 0, indices + shape[axis], indices).astype(np.int64)
    if places.ndim == 1:
        node, axis = _before_transpose(node, axis, places, editor, findings)
        shape = known_shape(node.inputs[0])
    flat = [int(p) for p in places.reshape(-1)]
    consecutive = bool(flat) and flat == list(range(flat[0], flat[0] + len(flat)))
    if not consecutive or places.ndim > 1:
        if not np.array_equal(places, indices):
            wanted = editor.constant(f"{node.outputs[0].name}.indices", places)
            set_inputs(node, [node.inputs[0], wanted])
        set_attributes(node, axis=axis)
        return
    findings.matched(node, "Gather of consecutive indices > Slice")
    drop_attributes(node, "axis")
    write_slice(node, editor, [axis], [(flat[0], flat[-1] + 1, 1)])
    if places.ndim == 0:
        reduced = known_shape(node.outputs[0])
        wanted = editor.ints(f"{node.outputs[0].name}.shape", reduced)
        editor.follow(node, "Reshape", [wanted], shape=reduced, attributes={"allowzero": 0})
        editor.set_shape(node.outputs[0], (*shape[:axis], 1, *shape[axis + 1 :]))


def _before_transpose(
    node: ir.Node, axis: int, places: np.ndarray, editor: GraphEditor, findings: Findings
) -> tuple[ir.Node, int]:
    """Case 3: the Gather and its axis, the same ones where there is no such Transpose."""
    before = producer_of(node.inputs[0], "Transpose")
    if before is None or only_reader(before.outputs[0]) is not node:
        return node, axis
    perm = read_ints(before, "perm", ())
    source = before.inputs[0]
    if source is None or not perm:
        return node, axis
    shape = list(known_shape(source))
    shape[perm[axis]] = len(places)
    set_inputs(node, [source, node.inputs[1]])
    editor.follow(
        node, "Transpose", shape=known_shape(node.outputs[0]), attributes={"perm": list(perm)}
    )
    editor.set_shape(node.outputs[0], shape)
    editor.remove_if_unread(before)
    findings.matched(node, "Gather behind a Transpose > before it")
    return node, perm[axis]


@rule_for("GatherND")
def canonicalize_gather_nd(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    """Case 2."""
    shape, indices = known_shape(node.inputs[0]), constant_array(node.inputs[1])
    if indices is None or read_int(node, "batch_dims", 0):
        findings.skipped(node, "the indices of GatherND are computed, or have batches")
        return
    count = indices.shape[-1]
    lead, rest = shape[:count], shape[count:]
    places = [
        np.where(i < 0, i + n, i) for i, n in zip(np.moveaxis(indices, -1, 0), lead, strict=True)
    ]
    flat = np.asarray(np.ravel_multi_index(places, lead), np.int64)
    source = node.inputs[0]
    if count > 1:
        joined = (int(np.prod(lead)), *rest)
        wanted = editor.ints(f"{node.outputs[0].name}.joined", joined)
        source = editor.node(
            "Reshape", [source, wanted], joined, like=node, attributes={"allowzero": 0}
        )
    node.op_type = "Gather"
    drop_attributes(node, "batch_dims")
    set_inputs(node, [source, editor.constant(f"{node.outputs[0].name}.indices", flat)])
    set_attributes(node, axis=0)
    findings.matched(node, "GatherND of constant indices > Gather")
    canonicalize_gather(node, editor, findings)
