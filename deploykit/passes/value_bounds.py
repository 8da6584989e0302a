"""Between which numbers a value must lie, whatever the input of the network.

Interval arithmetic (Moore 1966) over the ops whose results are bounded by what they are.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from deploykit.graph.ops import DOMAIN
from deploykit.graph.reading import constant_scalar, input_at, is_op, read_int

if TYPE_CHECKING:
    import onnx_ir as ir

Bounds = tuple[float, float]

ANYTHING: Bounds = (-math.inf, math.inf)
_FIXED: dict[str, Bounds] = {
    "Sigmoid": (0.0, 1.0),
    "HardSigmoid": (0.0, 1.0),
    "Softmax": (0.0, 1.0),
    "Tanh": (-1.0, 1.0),
    "Abs": (0.0, math.inf),
    "Exp": (0.0, math.inf),
}
#: Ops that give elements, or means, of their first input.
_SELECTING = frozenset(
    {
        *("MaxPool", "ReduceMean", "ReduceMax", "Reshape", "Transpose", "Slice", "Split"),
        *("Gather", "Expand", "Resize"),
    }
)


def clamp_of(node: ir.Node) -> Bounds | None:
    """What a Relu or a Clip with constant bounds clamps to; None for any other node."""
    if is_op(node, "Relu"):
        return 0.0, math.inf
    if not is_op(node, "Clip"):
        return None
    low, high = constant_scalar(input_at(node, 1)), constant_scalar(input_at(node, 2))
    if (low is None and input_at(node, 1)) or (high is None and input_at(node, 2)):
        return None
    return -math.inf if low is None else low, math.inf if high is None else high


def find_bounds(value: ir.Value | None) -> Bounds:
    """Bounds of a value of a float graph; infinite where nothing is known."""
    node = value.producer() if value is not None else None
    if node is None:
        return ANYTHING
    clamp = clamp_of(node)
    if clamp is not None:
        low, high = find_bounds(node.inputs[0])
        return min(max(low, clamp[0]), clamp[1]), max(min(high, clamp[1]), clamp[0])
    if node.op_type in _FIXED and not node.domain:
        return _FIXED[node.op_type]
    if is_op(node, *_SELECTING) or is_op(node, "ChannelShuffle", domain=DOMAIN):
        return find_bounds(node.inputs[0])
    if is_op(node, "AveragePool"):
        low, high = find_bounds(node.inputs[0])
        counted = read_int(node, "count_include_pad", 0) == 1
        return (min(low, 0.0), max(high, 0.0)) if counted else (low, high)
    if is_op(node, "Concat") or is_op(node, "ConcatShuffleSplit", domain=DOMAIN):
        found = [find_bounds(v) for v in node.inputs]
        return min(b[0] for b in found), max(b[1] for b in found)
    if is_op(node, "Add"):
        first, second = find_bounds(node.inputs[0]), find_bounds(node.inputs[1])
        return first[0] + second[0], first[1] + second[1]
    return ANYTHING
