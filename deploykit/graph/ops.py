"""The canonical set: the only ops that a target ever sees, each with its one spelling.

`canonicalize` and the fusing passes bring every source to this set; targets lower this set only,
and `docs/ops.md` is generated from it. All shapes are static, all constants are initializers, the
default-domain opset is `OPSET`. `deploykit.graph.op_facts` declares each op; the sets below follow
from the declarations.
"""

from __future__ import annotations

from deploykit.graph.op_facts import CANONICAL_OPS, DOMAIN, OPS, Channels, Kind, Op, op_types

__all__ = [
    "ACTIVATION_CARRIERS",
    "BINARY_OPS",
    "CANONICAL_OPS",
    "CLAMPS",
    "DOMAIN",
    "JOINING_OPS",
    "LINEAR_OPS",
    "OPS",
    "OPSET",
    "POOLS",
    "QDQ_OPS",
    "REDUCTIONS",
    "SELECTING_OPS",
    "STORED_CLAMPED",
    "UNARY_OPS",
    "UNDAMPED_OPS",
    "WEIGHTED_OPS",
    "Op",
    "is_canonical",
]

OPSET = 20

#: In the quantized stage only.
QDQ_OPS = frozenset(op.op_type for op in OPS.values() if op.kind is Kind.QUANTIZATION)

#: Layers whose second operand may be weights.
WEIGHTED_OPS = op_types(lambda op: op.weights is not None)

#: Layers with a bias: an affine map behind them can be written into their weights.
LINEAR_OPS = op_types(lambda op: op.bias is not None)

#: Ops that integer kernels compute together with a Relu or Clip right behind them: between the
#: two nothing is rounded, so the value between them has no scale.
ACTIVATION_CARRIERS = op_types(lambda op: op.accumulates)

#: Ops whose kernels end with a clamp.
STORED_CLAMPED = op_types(lambda op: op.stores_clamped)

#: Relu and Clip.
CLAMPS = op_types(lambda op: op.clamps)

#: Functions of each element by itself.
UNARY_OPS = op_types(lambda op: op.kind is Kind.UNARY)

#: Arithmetic whose constant operand may have one number a channel.
BINARY_OPS = op_types(lambda op: op.channels is Channels.BROADCASTS)

POOLS = op_types(lambda op: op.kind is Kind.POOL)

REDUCTIONS = op_types(lambda op: op.kind is Kind.REDUCTION)

#: Ops whose results are elements of their first input.
SELECTING_OPS = op_types(lambda op: op.selects)

#: Ops whose results are elements of all their inputs.
JOINING_OPS = op_types(lambda op: op.joins)

#: Ops through which an error passes as large as it is.
UNDAMPED_OPS = op_types(lambda op: op.undamped or op.selects or op.joins or op.clamps)


def is_canonical(domain: str, op_type: str) -> bool:
    """Whether an op is in the canonical set."""
    op = OPS.get((domain, op_type))
    return op is not None and op.canonical
