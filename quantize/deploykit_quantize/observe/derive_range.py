"""Ranges of values that calibration has not seen, by interval arithmetic.

A policy's rewrites may introduce values that the fused graph, and so the calibration table, does
not have. Their ranges follow from those of the values they are computed from (Moore 1966,
"Interval Analysis": the result of an operation on intervals contains every result on members).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from deploykit.errors import DataError
from deploykit.graph.read_qdq import constant_of

if TYPE_CHECKING:
    import onnx_ir as ir

Range = tuple[float, float]

#: Ops whose output takes only values of its first input (or zero, for a padding with zeros).
_SELECTING = frozenset(
    {"MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceMax", "Reshape",
     "Transpose", "Slice", "Split", "Gather", "Expand", "Resize", "ChannelShuffle"}
)  # fmt: skip
_BOUNDED: dict[str, Range] = {"Softmax": (0.0, 1.0), "HardSigmoid": (0.0, 1.0)}


def derive_range(value: ir.Value, range_of: Callable[[ir.Value], Range]) -> Range:
    """The range of ``value`` from those of its producer's inputs.

    Args:
        value: A value that the calibration table does not have.
        range_of: Gives the range of each computed input (it may come back here for it).

    Raises:
        DataError: the value's op has no rule here; the graph is not the one that was calibrated.
    """
    node = value.producer()
    if node is None:
        raise _underivable(value, "a graph input")
    inputs = node.inputs
    if node.op_type in _BOUNDED:
        return _BOUNDED[node.op_type]

    def operand(index: int) -> Range:
        source = inputs[index] if index < len(inputs) else None
        if source is None:
            return 0.0, 0.0
        data = constant_of(source)
        return range_of(source) if data is None else (float(data.min()), float(data.max()))

    if node.op_type in _SELECTING:
        return operand(0)
    if node.op_type == "Clip":
        low, high = operand(0)
        floor, ceiling = operand(1)[0], operand(2)[0]
        return min(max(low, floor), ceiling), min(max(high, floor), ceiling)
    if node.op_type == "Pad":
        low, high = operand(0)
        fill = operand(2)
        return min(low, fill[0]), max(high, fill[1])
    if node.op_type in ("Concat", "ConcatShuffleSplit"):
        ranges = [operand(i) for i in range(len(inputs))]
        return min(r[0] for r in ranges), max(r[1] for r in ranges)
    if node.op_type in _MONOTONIC:
        low, high = (_MONOTONIC[node.op_type](end) for end in operand(0))
        return min(low, high), max(low, high)
    if node.op_type in _ARITHMETIC:
        return _ARITHMETIC[node.op_type](operand(0), operand(1))
    raise _underivable(value, node.op_type)


def _underivable(value: ir.Value, what: str) -> DataError:
    return DataError(
        f"no range is known for '{value.name}' ({what})",
        expected="a value of the calibration table, or one that follows from such values",
        advice="calibrate again, on this very model",
    )


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))


def _of_ends(combine: Callable[[float, float], float]) -> Callable[[Range, Range], Range]:
    """For an operation that is monotonic in each operand: its extremes are at the ends."""

    def apply(a: Range, b: Range) -> Range:
        results = [combine(x, y) for x in a for y in b]
        return min(results), max(results)

    return apply


def _divide(a: Range, b: Range) -> Range:
    if b[0] <= 0.0 <= b[1]:
        raise DataError(
            f"a division by values in {b[0]:.6g}..{b[1]:.6g}", expected="a divisor away from zero"
        )
    return _of_ends(lambda x, y: x / y)(a, b)


_MONOTONIC: dict[str, Callable[[float], float]] = {
    "Relu": lambda x: max(x, 0.0),
    "Sigmoid": _sigmoid,
    "Tanh": math.tanh,
    "Neg": lambda x: -x,
}
_ARITHMETIC: dict[str, Callable[[Range, Range], Range]] = {
    "Add": _of_ends(lambda x, y: x + y),
    "Sub": _of_ends(lambda x, y: x - y),
    "Mul": _of_ends(lambda x, y: x * y),
    "Max": _of_ends(max),
    "Min": _of_ends(min),
    "Div": _divide,
}
