"""Reshape, Transpose, Reshape over the channels → deploykit::ChannelShuffle.

A shuffle with g groups sees the C channels as a (g, k = C / g) matrix and transposes it. Exporters
write it in many shapes; all are brought to one question by looking at the middle shape s and the
permutation p:

1. Axes of length 1 move nowhere: they are dropped from s and p.
2. Axes that p leaves next to each other, in order, are one axis: they are merged (so height and
   width may be written apart or flattened).
3. What is left must be (g, k, ...) with p = (1, 0, ...) for a batch of 1, or (n, g, k, ...) with
   p = (0, 2, 1, ...), where g k = C, and after it nothing, or the pixels as one axis.

The last Reshape usually gives the input's shape back. Where it gives another (two halves side by
side, say), the shuffle is followed by that Reshape. Reasons: a value in between has other readers;
the permutation moves other axes than the two of the channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from deploykit.graph.editing import GraphEditor, set_input
from deploykit.graph.functions import add_function
from deploykit.graph.ops import DOMAIN
from deploykit.graph.provenance import copy_provenance
from deploykit.graph.reading import (
    is_op,
    known_shape,
    producer_of,
    read_ints,
    why_not_private,
)
from deploykit.passes.base import Findings, Pass, PassResult

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class FuseChannelShuffle(Pass):
    """See the module's docstring."""

    requires: ClassVar[frozenset[str]] = frozenset({"canonical", "static_shapes", "no_identities"})
    ensures: ClassVar[frozenset[str]] = frozenset({"shuffles_fused"})
    breaks: ClassVar[frozenset[str]] = frozenset({"no_dead_code"})

    def apply(self, model: ir.Model) -> PassResult:
        """Fuse every shuffle, found at its last Reshape."""
        findings = Findings(self.name)
        editor = GraphEditor(model.graph)
        for node in model.graph:
            if not is_op(node, "Reshape"):
                continue
            middle = producer_of(node.inputs[0], "Transpose")
            first = producer_of(middle.inputs[0], "Reshape") if middle is not None else None
            if middle is not None and first is not None:
                _fuse(first, middle, node, model, editor, findings)
        return findings.result()


def _fuse(
    first: ir.Node,
    middle: ir.Node,
    last: ir.Node,
    model: ir.Model,
    editor: GraphEditor,
    findings: Findings,
) -> None:
    source = first.inputs[0]
    shape = known_shape(source)
    groups, reason = shuffle_groups(
        shape, known_shape(first.outputs[0]), read_ints(middle, "perm", ())
    )
    reason = reason or why_not_private(first.outputs[0]) or why_not_private(middle.outputs[0])
    if reason or source is None:
        findings.skipped(last, reason)
        return
    output = last.outputs[0]
    whole = known_shape(output) == shape
    what = f"Reshape, Transpose, Reshape > ChannelShuffle(groups = {groups})"
    findings.matched(last, what if whole else f"{what} and Reshape")
    add_function(model, "ChannelShuffle")
    shuffled = editor.node(
        "ChannelShuffle",
        [source],
        shape,
        like=first,
        before=last,
        domain=DOMAIN,
        attributes={"groups": groups},
        name=f"{output.name}.shuffled",
        dtype=output.dtype,
    )
    producer = producer_of(shuffled)
    if producer is not None:
        copy_provenance([middle, last], producer)
    if whole:
        editor.take_over(output, shuffled)
        editor.remove_if_unread(last, middle, first)
    else:
        set_input(last, 0, shuffled)
        editor.remove_if_unread(middle, first)


def shuffle_groups(
    shape: tuple[int, ...], middle: tuple[int, ...], perm: tuple[int, ...]
) -> tuple[int, str]:
    """The groups of the shuffle that a Reshape to ``middle`` and a Transpose by ``perm`` make.

    Args:
        shape: NCHW shape of the value before.
        middle: Shape between the two.
        perm: Permutation of the Transpose.

    Returns:
        The number of groups and no reason; or 0 and the reason why it is no shuffle.
    """
    if len(shape) != 4:
        return 0, f"a value of rank {len(shape)} has no NCHW channels"
    dims, order = _merge_axes(middle, perm)
    batch, channels, pixels = shape[0], shape[1], shape[2] * shape[3]
    if batch > 1:
        if not dims or dims[0] != batch or order[0] != 0:
            return 0, f"the permutation of {list(middle)} by {list(perm)} moves the batch axis"
        dims, order = dims[1:], [i - 1 for i in order[1:]]
    if order[:2] != [1, 0] or math.prod(dims[:2]) != channels:
        return 0, f"the permutation of {list(middle)} by {list(perm)} is no shuffle of the channels"
    if math.prod(dims[2:]) != pixels or order[2:] != list(range(2, len(dims))):
        return 0, f"the permutation of {list(middle)} by {list(perm)} moves pixels too"
    return dims[0], ""


def _merge_axes(middle: tuple[int, ...], perm: tuple[int, ...]) -> tuple[list[int], list[int]]:
    # Cases 1 and 2 of the module's docstring.
    kept = [p for p in perm if middle[p] != 1]
    runs: list[list[int]] = []
    place = {axis: index for index, axis in enumerate(sorted(kept))}
    for axis in kept:
        if runs and place[axis] == place[runs[-1][-1]] + 1:
            runs[-1].append(axis)
        else:
            runs.append([axis])
    ordered = sorted(runs, key=lambda run: run[0])
    dims = [math.prod(middle[axis] for axis in run) for run in ordered]
    return dims, [ordered.index(run) for run in runs]
