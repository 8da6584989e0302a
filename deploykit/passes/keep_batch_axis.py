"""The batch axis of one sample stays where it is: a transpose moves the axes that hold something.

1.  With axes of length 1 left out, which may stand anywhere,

        Transpose(x) = Reshape(Transpose'(Reshape(x)))

    where Transpose' keeps the batch axis in its place, and axes that move side by side are one; if
    nothing else moves, it is a Reshape alone. So is one of more than five axes (windows of a map).
    Attention's query, key and value come out of one layer by ``permute(2, 0, 3, 1, 4)``: once they
    are cut apart, that moves an axis of length 1 to the front.
2.  A transpose of (a, b, c) that was (1, a, b, c) before, and is read as (1, ...) behind, is one of
    the four axes: the Reshapes around it have nothing left to do.

A runtime without a batch axis (ncnn) can do neither otherwise, and others have less to move.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from deploykit.graph.editing import GraphEditor, set_attributes, set_inputs
from deploykit.graph.reading import is_op, known_shape, producer_of, read_ints
from deploykit.passes.base import Findings, Pass, PassResult

if TYPE_CHECKING:
    import onnx_ir as ir


#: More axes than these no target moves.
_MOST_AXES = 5


@dataclass(frozen=True)
class KeepBatchAxis(Pass):
    """See the module's docstring."""

    requires: ClassVar[frozenset[str]] = frozenset({"static_shapes"})
    breaks: ClassVar[frozenset[str]] = frozenset({"no_identities"})

    def apply(self, model: ir.Model) -> PassResult:
        """Rewrite in place."""
        findings = Findings(self.name)
        editor = GraphEditor(model.graph)
        for node in list(model.graph):
            if is_op(node, "Transpose") and not _regain_batch(node, editor, findings):
                _rewrite(node, editor, findings)
        return findings.result()


def _rewrite(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    value, result = node.inputs[0], node.outputs[0]
    perm = read_ints(node, "perm", ())
    if value is None or not perm or (perm[0] == 0 and len(perm) <= _MOST_AXES):
        return
    before, after = known_shape(value), known_shape(result)
    if before[0] != 1 or after[0] != 1:
        findings.skipped(node, "the batch axis holds more than one sample")
        return
    lengths, order = coalesce_axes(before, perm)
    if order == sorted(order):
        moved = value
        findings.matched(node, "it moves axes of length 1 > Reshape")
    else:
        name, shape = result.name, (1, *lengths)
        sizes = editor.ints(f"{name}.kept", shape)
        packed = editor.node("Reshape", [value, sizes], shape, like=node)
        moved = editor.node(
            "Transpose",
            [packed],
            tuple(shape[axis] for axis in order),
            like=node,
            attributes={"perm": tuple(order)},
        )
        findings.matched(node, "it moves the batch axis > it moves the axes that hold something")
    node.op_type = "Reshape"
    node.attributes.clear()
    set_inputs(node, [moved, editor.ints(f"{result.name}.shape", after)])


def coalesce_axes(
    shape: tuple[int, ...], perm: tuple[int, ...]
) -> tuple[tuple[int, ...], list[int]]:
    """The same movement of elements with the fewest axes.

    Args:
        shape: Of what is transposed.
        perm: Axis ``a`` of the result is axis ``perm[a]`` of it.

    Returns:
        Lengths of the axes that are left, in the order of what is transposed; and the permutation
        of these axes behind a batch axis of length 1, which stays in front.
    """
    kept = [axis for axis, length in enumerate(shape) if length > 1]
    runs: list[list[int]] = []
    for axis in (kept.index(axis) for axis in perm if axis in kept):
        if runs and axis == runs[-1][-1] + 1:
            runs[-1].append(axis)
        else:
            runs.append([axis])
    ordered = sorted(runs)
    lengths = tuple(math.prod(shape[kept[axis]] for axis in run) for run in ordered)
    return lengths, [0, *(1 + ordered.index(run) for run in runs)]


def _regain_batch(node: ir.Node, editor: GraphEditor, findings: Findings) -> bool:
    """Case 2; whether it applies."""
    import onnx_ir as ir

    dropped, result = producer_of(node.inputs[0], "Reshape"), node.outputs[0]
    source = dropped.inputs[0] if dropped is not None else None
    readers = [use.node for use in result.uses()]
    if source is None or not readers or result.is_graph_output():
        return False
    before, after = known_shape(node.inputs[0]), known_shape(result)
    if known_shape(source)[0] != 1 or before[0] == 1:
        return False
    if not all(is_op(r, "Reshape") and known_shape(r.outputs[0]) == (1, *after) for r in readers):
        return False
    perm = read_ints(node, "perm", tuple(reversed(range(len(before)))))
    sizes = editor.ints(f"{result.name}.sample", (1, *before))
    set_inputs(node, [editor.node("Reshape", [source, sizes], (1, *before), like=node)])
    set_attributes(node, perm=(0, *(axis + 1 for axis in perm)))
    result.shape = ir.Shape((1, *after))
    findings.matched(
        node, "it moves axes of a sample whose batch axis was taken off > of the sample"
    )
    return True
