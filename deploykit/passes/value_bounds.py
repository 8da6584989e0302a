"""Between which numbers a value must lie, whatever the input of the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploykit.graph.op_facts import ANYTHING, Interval, interval
from deploykit.graph.reading import constant_array, input_at

if TYPE_CHECKING:
    import onnx_ir as ir


def find_bounds(value: ir.Value | None) -> Interval:
    """Bounds of a value of a float graph; infinite where nothing is known."""
    return _find(value, {})


def _find(value: ir.Value | None, known: dict[ir.Value, Interval]) -> Interval:
    if value is None:
        return ANYTHING
    if value not in known:
        known[value] = _of_constant(value) or _of_node(value.producer(), known)
    return known[value]


def _of_constant(value: ir.Value) -> Interval | None:
    array = constant_array(value)
    if array is None or array.size == 0:
        return None
    return float(array.min()), float(array.max())


def _of_node(node: ir.Node | None, known: dict[ir.Value, Interval]) -> Interval:
    if node is None:
        return ANYTHING
    return interval(node, lambda index: _find(input_at(node, index), known)) or ANYTHING
