"""The nodes that stay float since the user said so (`Policy.keep_float`), and what belongs to them.

1.  The nodes that a scope fits.
2.  The activation that such a node carries: between the two nothing is rounded in integers either,
    and what lies there may have a range of which the activation hands on a small part.
3.  Nodes without weights that lie between kept ones alone: rounding there would bring back the
    noise that the layers around were kept from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploykit.graph.ops import WEIGHTED_OPS
from deploykit.graph.read_qdq import carries_activation, data_inputs
from deploykit_quantize.policy import Policy

if TYPE_CHECKING:
    import onnx_ir as ir


def find_kept_nodes(graph: ir.Graph, policy: Policy) -> frozenset[ir.Node]:
    """The nodes of a prepared graph that a policy keeps in floats; empty without scopes."""
    kept = {n for n in graph if any(scope.matches(n) for scope in policy.keep_float)}
    if not kept:
        return frozenset()
    for node in list(kept):
        if carries_activation(node.outputs[0]):
            kept.update(use.node for use in node.outputs[0].uses())
    for part in _parts_without_weights(graph, kept):
        if all(neighbour in kept for node in part for neighbour in _around(node, part)):
            kept |= part
    return frozenset(kept)


def _parts_without_weights(graph: ir.Graph, kept: set[ir.Node]) -> list[set[ir.Node]]:
    """Connected nodes that are neither kept nor have weights."""
    left = [n for n in graph if n not in kept and n.op_type not in WEIGHTED_OPS]
    waiting, parts = dict.fromkeys(left), []
    while waiting:
        part: set[ir.Node] = set()
        pending = [next(iter(waiting))]
        while pending:
            node = pending.pop()
            if node in waiting:
                del waiting[node]
                part.add(node)
                pending += [n for n in _around(node, set()) if n is not None and n in waiting]
        parts.append(part)
    return parts


def _around(node: ir.Node, part: set[ir.Node]) -> list[ir.Node | None]:
    """What makes and reads a node's values, without a part; None for an input of the graph."""
    makers = [value.producer() for value in data_inputs(node)]
    readers = [use.node for value in node.outputs for use in value.uses()]
    return [n for n in (*makers, *readers) if n is None or n not in part]
