"""Arithmetic on two operands."""

from __future__ import annotations

from deploykit.graph.op_facts import intervals
from deploykit.graph.op_facts.declaration import Channels, IntervalRule, Kind, Op


def _binary(
    op_type: str,
    spelling: str,
    interval: IntervalRule | None,
    *,
    cost: str = "elementwise 1",
    clampable: bool = False,
    undamped: bool = False,
    sensitive: int | None = None,
) -> Op:
    return Op(
        op_type,
        spelling,
        cost,
        Kind.BINARY,
        Channels.BROADCASTS,
        interval,
        accumulates=clampable,
        stores_clamped=clampable,
        undamped=undamped,
        sensitive=sensitive,
    )


ARITHMETIC = (
    _binary(
        "Add",
        "numpy broadcasting; a constant is the second operand",
        intervals.added,
        clampable=True,
        undamped=True,
    ),
    _binary(
        "Sub",
        "numpy broadcasting; subtraction of a constant is an Add",
        intervals.subtracted,
        clampable=True,
        undamped=True,
    ),
    _binary(
        "Mul",
        "numpy broadcasting; a constant is the second operand",
        intervals.of_all_ends(intervals.product),
        clampable=True,
    ),
    _binary(
        "Div",
        "numpy broadcasting; division by a constant is a Mul",
        intervals.divided,
        clampable=True,
        sensitive=1,
    ),
    _binary(
        "Max",
        "two operands, a constant second; max(x, 0) is a Relu",
        intervals.of_all_ends(max),
        undamped=True,
    ),
    _binary("Min", "two operands, a constant second", intervals.of_all_ends(min), undamped=True),
    _binary("Pow", "constant exponent other than 1, 2 (a Mul) and 1/2 (a Sqrt)", None, sensitive=0),
)
