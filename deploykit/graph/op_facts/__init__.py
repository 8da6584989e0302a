"""What is known of every op, declared once.

`declaration.py` says what a declaration holds, `intervals.py` how ranges follow from ranges, and
the file of each kind declares its ops. Sets of ops are derived from the declarations (`op_types`);
a target that differs states its difference, with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from deploykit.graph.op_facts.activations import ACTIVATION_FUNCTIONS, ACTIVATIONS
from deploykit.graph.op_facts.arithmetic import ARITHMETIC
from deploykit.graph.op_facts.declaration import DOMAIN, Channels, Interval, Kind, Op, Operands
from deploykit.graph.op_facts.intervals import ANYTHING, NO_BOUND, clamp_of
from deploykit.graph.op_facts.layers import LAYERS
from deploykit.graph.op_facts.movement import MOVEMENT, MOVEMENT_FUNCTIONS
from deploykit.graph.op_facts.outside import OUTSIDE
from deploykit.graph.op_facts.pools import POOLS

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = [
    "ANYTHING",
    "CANONICAL_OPS",
    "DOMAIN",
    "NO_BOUND",
    "OPS",
    "Channels",
    "Interval",
    "Kind",
    "Op",
    "Operands",
    "clamp_of",
    "facts_of",
    "interval",
    "op_types",
]

_ONNX = (*LAYERS, *ARITHMETIC, *ACTIVATIONS, *POOLS, *MOVEMENT)

#: The canonical set, in the order of docs/ops.md.
CANONICAL_OPS: tuple[Op, ...] = (*_ONNX, *ACTIVATION_FUNCTIONS, *MOVEMENT_FUNCTIONS)


def _by_key(ops: tuple[Op, ...]) -> Mapping[tuple[str, str], Op]:
    found: dict[tuple[str, str], Op] = {}
    for op in ops:
        if op.key in found:
            raise ValueError(f"{op.op_type} is declared twice")
        found[op.key] = op
    return MappingProxyType(found)


#: (Domain, op type) → its declaration.
OPS = _by_key((*OUTSIDE, *CANONICAL_OPS))


def facts_of(node: ir.Node | None) -> Op | None:
    """The declaration of a node's op; None for an op that is not declared."""
    return None if node is None else OPS.get((node.domain, node.op_type))


def op_types(accepts: Callable[[Op], bool]) -> frozenset[str]:
    """The canonical ops with a property, functions of ours among them, by op type."""
    return frozenset(op.op_type for op in CANONICAL_OPS if accepts(op))


def interval(node: ir.Node, operands: Operands) -> Interval | None:
    """Where the results of a node lie; None where that does not follow from its inputs.

    Args:
        node: A node of a float graph.
        operands: Index of an input → where it lies; `ANYTHING` where that is not known.
    """
    op = facts_of(node)
    return None if op is None or op.interval is None else op.interval(node, operands)
