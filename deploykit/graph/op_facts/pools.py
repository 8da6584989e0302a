"""Pools, reductions and Resize."""

from __future__ import annotations

from deploykit.graph.op_facts import intervals
from deploykit.graph.op_facts.declaration import Channels, IntervalRule, Kind, Op


def _reduction(
    op_type: str, spelling: str, interval: IntervalRule | None, *, selects: bool = False
) -> Op:
    return Op(
        op_type,
        spelling,
        "reduction",
        Kind.REDUCTION,
        Channels.REDUCES,
        interval,
        selects=selects,
    )


POOLS = (
    Op(
        "MaxPool",
        "2-D; explicit pads, strides, kernel_shape; ceil_mode 0, dilations 1",
        "pool",
        Kind.POOL,
        Channels.TIES,
        intervals.first,
        stores_clamped=True,
        selects=True,
    ),
    Op(
        "AveragePool",
        "2-D; as MaxPool, count_include_pad explicit",
        "pool",
        Kind.POOL,
        Channels.TIES,
        intervals.averaged,
        accumulates=True,
        stores_clamped=True,
    ),
    _reduction(
        "ReduceMean",
        "axes a constant input, not negative, sorted; keepdims explicit",
        intervals.first,
    ),
    _reduction("ReduceMax", "as ReduceMean", intervals.first, selects=True),
    _reduction("ReduceSum", "as ReduceMean", None),
)

RESIZE = Op(
    "Resize",
    "nearest or linear; sizes a constant input for every axis",
    "resize",
    Kind.RESIZE,
    Channels.KEEPS_OUTER,
    intervals.first,
    structural=(1, 2),
)
