"""Interval arithmetic: where an op's results lie, given where its inputs do.

Moore 1966, "Interval Analysis": the result of an operation on intervals contains every result on
their members. Each rule here is one of `declaration.IntervalRule`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from deploykit.graph.op_facts.declaration import Interval, IntervalRule, Operands
from deploykit.graph.reading import constant_scalar, input_at, is_op, read_float, read_int

if TYPE_CHECKING:
    import onnx_ir as ir

ANYTHING: Interval = (-math.inf, math.inf)

#: Beyond it, a bound is how exporters write "no bound".
NO_BOUND = 3.0e38


def clamp_of(node: ir.Node | None) -> Interval | None:
    """What a Relu, or a Clip with constant bounds, clamps to; None for any other node.

    A bound that is omitted, or is beyond `NO_BOUND`, is infinite.
    """
    if node is None or is_op(node, "Relu"):
        return None if node is None else (0.0, math.inf)
    if not is_op(node, "Clip"):
        return None
    found = []
    for index, open_ in ((1, -math.inf), (2, math.inf)):
        value = input_at(node, index)
        bound = open_ if value is None else constant_scalar(value)
        if bound is None:
            return None
        found.append(bound if abs(bound) < NO_BOUND else math.copysign(math.inf, bound))
    return found[0], found[1]


def clamped(node: ir.Node, operands: Operands) -> Interval | None:
    """The first input, clamped to what `clamp_of` reads."""
    bounds, (low, high) = clamp_of(node), operands(0)
    if bounds is None:
        return None
    return min(max(low, bounds[0]), bounds[1]), min(max(high, bounds[0]), bounds[1])


def first(_: ir.Node, operands: Operands) -> Interval:
    """Elements, or means of elements, of the first input."""
    return operands(0)


def joined(node: ir.Node, operands: Operands) -> Interval:
    """Elements of any input."""
    found = [operands(index) for index in range(len(node.inputs))]
    return min(low for low, _ in found), max(high for _, high in found)


def averaged(node: ir.Node, operands: Operands) -> Interval:
    """Means over windows, which may reach into the zeros around the map."""
    low, high = operands(0)
    counted = read_int(node, "count_include_pad", 0) == 1
    return (min(low, 0.0), max(high, 0.0)) if counted else (low, high)


def padded(node: ir.Node, operands: Operands) -> Interval:
    """The first input and the constant around it, which is zero where it is omitted."""
    low, high = operands(0)
    fill = operands(2) if input_at(node, 2) is not None else (0.0, 0.0)
    return min(low, fill[0]), max(high, fill[1])


def within(low: float, high: float) -> IntervalRule:
    """Between two numbers, whatever the inputs."""
    return lambda _, __: (low, high)


def of_ends(function: Callable[[float], float]) -> IntervalRule:
    """Of a function that rises, or falls, all the way: its extremes are at the ends."""

    def rule(_: ir.Node, operands: Operands) -> Interval:
        low, high = (function(end) for end in operands(0))
        return min(low, high), max(low, high)

    return rule


def above_least(function: Callable[[float], float], place: float, least: float) -> IntervalRule:
    """Of a function that falls to its least value and rises from there, to x itself.

    Args:
        function: Of a finite number.
        place: Where its least value is.
        least: A number that is no greater than that value.
    """

    def value(x: float) -> float:
        return function(x) if math.isfinite(x) else max(x, 0.0)

    def rule(_: ir.Node, operands: Operands) -> Interval:
        low, high = operands(0)
        ends = (value(low), value(high))
        return (least if low <= place <= high else min(ends)), max(*ends, 0.0)

    return rule


def of_all_ends(combine: Callable[[float, float], float]) -> IntervalRule:
    """Of an operation that rises or falls in each operand alone."""

    def rule(_: ir.Node, operands: Operands) -> Interval | None:
        results = [combine(x, y) for x in operands(0) for y in operands(1)]
        return None if any(map(math.isnan, results)) else (min(results), max(results))

    return rule


def added(_: ir.Node, operands: Operands) -> Interval:
    """Sums."""
    (a, b), (c, d) = operands(0), operands(1)
    return a + c, b + d


def subtracted(_: ir.Node, operands: Operands) -> Interval:
    """Differences."""
    (a, b), (c, d) = operands(0), operands(1)
    return a - d, b - c


def divided(node: ir.Node, operands: Operands) -> Interval | None:
    """Quotients; not known where the divisor may be zero."""
    low, high = operands(1)
    if low <= 0.0 <= high:
        return None
    return of_all_ends(lambda x, y: x / y)(node, operands)


def product(x: float, y: float) -> float:
    """x y, where zero times anything is zero (an infinite end stands for numbers below it)."""
    return 0.0 if 0.0 in (x, y) else x * y


def magnitude(_: ir.Node, operands: Operands) -> Interval:
    """Absolute values."""
    results = [abs(x) for x in _ends_and_nearest(operands(0))]
    return min(results), max(results)


def rectified(node: ir.Node, operands: Operands) -> Interval:
    """LeakyRelu: x, or alpha x below zero."""
    alpha = read_float(node, "alpha", 0.01)
    results = [x if x >= 0.0 else product(alpha, x) for x in _ends_and_nearest(operands(0))]
    return min(results), max(results)


def elu(node: ir.Node, operands: Operands) -> Interval:
    """Elu: x, or alpha (exp(x) - 1) below zero."""
    alpha = read_float(node, "alpha", 1.0)
    results = [x if x >= 0.0 else alpha * math.expm1(x) for x in _ends_and_nearest(operands(0))]
    return min(results), max(results)


def _ends_and_nearest(bounds: Interval) -> tuple[float, float, float]:
    """Both ends, and what of the interval is nearest to zero, where a function may turn."""
    low, high = bounds
    return low, high, min(max(0.0, low), high)


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)), without overflow."""
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))


def exponential(x: float) -> float:
    """exp(x), infinite where a float64 cannot hold it."""
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


def root(x: float) -> float:
    """sqrt(x); of a number below zero, which has none, zero."""
    return math.sqrt(max(x, 0.0))
