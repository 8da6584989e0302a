"""Which clamps cost no memory access: those computed in the registers of the op before them.

Every runtime that we know clamps the output of a convolution or of arithmetic before it is stored:
ReLU, ReLU6 and the clamp to [-1, 1]. Such a node is no layer of its own in the fused stage; its
arithmetic is counted with the layer before it. It is absorbed when it is the only reader of a
value that is no output of the graph.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from deploykit.graph.op_facts import clamp_of
from deploykit.graph.ops import STORED_CLAMPED
from deploykit.graph.reading import is_op, why_not_private

if TYPE_CHECKING:
    import onnx_ir as ir

_BOUNDS = frozenset({(0.0, math.inf), (0.0, 6.0), (-1.0, 1.0)})


def find_absorbed(graph: ir.Graph) -> dict[ir.Node, ir.Node]:
    """Producer → the clamp that it absorbs, in the order of the graph."""
    absorbed = {}
    for node in graph:
        if clamp_of(node) not in _BOUNDS or node.inputs[0] is None:
            continue
        value = node.inputs[0]
        producer = value.producer()
        if is_op(producer, *STORED_CLAMPED) and producer is not None and not why_not_private(value):
            absorbed[producer] = node
    return absorbed
