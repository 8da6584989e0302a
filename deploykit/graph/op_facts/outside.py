"""Ops of a graph that is not fused yet, of a quantized stage, and of one target's rewrites."""

from __future__ import annotations

from deploykit.graph.op_facts import intervals
from deploykit.graph.op_facts.declaration import Channels, Kind, Op

OUTSIDE = (
    Op(
        "BatchNormalization",
        "",
        "elementwise 2",  # scale and shift, the statistics folded
        Kind.NORMALIZATION,
        canonical=False,
    ),
    Op("Identity", "", "view", Kind.UNARY, interval=intervals.first, canonical=False),
    Op("Dropout", "", "view", Kind.UNARY, interval=intervals.first, canonical=False),
    Op("Cast", "", "move", Kind.UNARY, canonical=False),
    Op(
        "Log",  # no target carries it
        "",
        "elementwise 1",
        Kind.UNARY,
        sensitive=0,
        canonical=False,
    ),
    Op(
        "QuantizeLinear",
        "",
        "elementwise 5",  # divide, round, add, two bounds
        Kind.QUANTIZATION,
        canonical=False,
    ),
    Op("DequantizeLinear", "", "elementwise 2", Kind.QUANTIZATION, canonical=False),
    Op(
        "GlobalAveragePool",  # written for ONNX Runtime, whose integer kernel it is
        "",
        "",
        Kind.REDUCTION,
        Channels.TIES,
        intervals.first,
        canonical=False,
    ),
)
