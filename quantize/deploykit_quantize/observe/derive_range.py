"""Ranges of values that calibration has not seen, by interval arithmetic.

A policy's rewrites may introduce values that the fused graph, and so the calibration table, does
not have. Their ranges follow from those of the values that they are computed from, by the interval
rules of `deploykit.graph.op_facts`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from deploykit.errors import DataError
from deploykit.graph.op_facts import ANYTHING, Interval, interval
from deploykit.graph.reading import constant_array, input_at

if TYPE_CHECKING:
    import onnx_ir as ir

Range = Interval


def derive_range(value: ir.Value, range_of: Callable[[ir.Value], Range]) -> Range:
    """The range of ``value`` from those of its producer's inputs.

    Args:
        value: A value that the calibration table does not have.
        range_of: Gives the range of each computed input (it may come back here for it).

    Raises:
        DataError: it does not follow from them; the graph is not the one that was calibrated.
    """
    node = value.producer()
    if node is None:
        raise _underivable(value, "a graph input")

    def operand(index: int) -> Range:
        source = input_at(node, index)
        if source is None:
            return ANYTHING
        data = constant_array(source)
        return range_of(source) if data is None else (float(data.min()), float(data.max()))

    found = interval(node, operand)
    if found is None:
        raise _underivable(value, node.op_type)
    return found


def _underivable(value: ir.Value, what: str) -> DataError:
    return DataError(
        f"no range is known for '{value.name}' ({what})",
        expected="a value of the calibration table, or one that follows from such values",
        advice="calibrate again, on this very model",
    )
