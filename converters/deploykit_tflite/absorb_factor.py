"""A factor behind a value is left to the weights of the layers that read it.

    L(f x) = (f W) x + b                                for a Conv or Gemm L(x) = W x + b
    mean(f x) = f mean(x),  max(f x) = f max(x)         f > 0
    (f x) * g = f (x * g)

So where all that is made of ``f x`` is of the last two kinds until layers of the first kind read
it, ``f x`` need never be computed: ``x`` is held instead, and the weights are multiplied.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from deploykit.graph.editing import GraphEditor, set_input
from deploykit.graph.node_fields import shape_of
from deploykit.graph.op_facts import Channels, op_types
from deploykit.graph.ops import POOLS, REDUCTIONS
from deploykit.graph.reading import constant_array
from deploykit.graph.value_multiple import multiple_of, set_multiple

if TYPE_CHECKING:
    import onnx_ir as ir

_LAYERS = op_types(lambda op: op.channels is Channels.ABSORBS)
#: Others are too; those that make several values are not followed.
_HOMOGENEOUS = POOLS | REDUCTIONS | {"Reshape"} | {"Relu"}


@dataclass
class FactorReaders:
    """What is made of a value until layers read it.

    Attributes:
        layers: Conv and Gemm nodes whose weights take the factor.
        between: The values between, in the order in which they were found.
        reason: Why the factor cannot be left to them; empty if it can.
    """

    layers: list[ir.Node] = field(default_factory=list)
    between: list[ir.Value] = field(default_factory=list)
    reason: str = ""


def find_factor_readers(value: ir.Value) -> FactorReaders:
    """Follow a value to the layers that can take a factor of it."""
    found, waiting, seen = FactorReaders(), [value], {value}
    while waiting and not found.reason:
        one = waiting.pop(0)
        if one.is_graph_output():
            found.reason = f"'{one.name}' is an output of the graph"
        for use in one.uses():
            node, index = use.node, use.idx
            weights = constant_array(node.inputs[1]) if len(node.inputs) > 1 else None
            if node.domain:
                found.reason = f"{node.op_type} reads '{one.name}'"
            elif node.op_type in _LAYERS and index == 0 and weights is not None:
                found.layers.append(node)
            elif (node.op_type in _HOMOGENEOUS and index == 0) or _scales(node, seen):
                if node.outputs[0] not in seen:
                    seen.add(node.outputs[0])
                    found.between.append(node.outputs[0])
                    waiting.append(node.outputs[0])
            else:
                found.reason = f"{node.op_type} reads '{one.name}'"
    return found


def _scales(node: ir.Node, seen: set[ir.Value]) -> bool:
    """Whether a node multiplies by what is no such value: a square would hold the factor twice."""
    return node.op_type == "Mul" and any(
        v is not None and v not in seen and shape_of(v) is not None for v in node.inputs
    )


def leave_factor(
    value: ir.Value, source: str, factor: float, readers: FactorReaders, editor: GraphEditor
) -> None:
    """Multiply the layers' weights; the values hold ``1 / factor`` times what they did.

    Args:
        value: What is held from now on, with a separate name.
        source: Name of the value that it stands for: ``factor`` times it.
        factor: Positive.
        readers: As `find_factor_readers` gave them, of what ``value`` stands for; no reason.
        editor: Of the graph.
    """
    set_multiple(value, source, 1 / factor)
    for one in readers.between:
        name, before = multiple_of(one)
        set_multiple(one, name, before / factor)
        one.name = f"{name}.multiple"
    for node in readers.layers:
        weights = constant_array(node.inputs[1])
        assert weights is not None
        scaled = (weights.astype(np.float64) * factor).astype(weights.dtype)
        old = node.inputs[1]
        assert old is not None
        set_input(node, 1, editor.constant(f"{old.name}.scaled", scaled))
