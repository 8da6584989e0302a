"""Reading what a lowering needs of a canonical node; what is not there is a `FormError`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deploykit.errors import UnsupportedModelError
from deploykit.graph.reading import constant_array, input_at, static_shape
from deploykit.tensors import Array

if TYPE_CHECKING:
    import onnx_ir as ir


class FormError(UnsupportedModelError):
    """This form of an op has no lowering; the driver collects all of them.

    Args:
        reason: What about the node is not supported.
        advice: What the user can change.
    """

    def __init__(self, reason: str, advice: str = "") -> None:
        super().__init__(reason, advice=advice)
        self.reason = reason


def needed_value(node: ir.Node, index: int) -> ir.Value:
    """An input that must be there."""
    value = input_at(node, index)
    if value is None:
        raise FormError(f"its input {index} is missing", "it is not in canonical form")
    return value


def shape_of(value: ir.Value) -> tuple[int, ...]:
    """The static shape of a value, batch axis included."""
    shape = static_shape(value)
    if shape is None:
        raise FormError(f"the shape of '{value.name}' is not static", "fix the shape at export")
    return shape


def constant_of(value: ir.Value | None) -> Array | None:
    """The contents of an initializer that is no input of the graph; None for anything else."""
    if value is None or value.is_graph_input():
        return None
    return constant_array(value)


def needed_constant(node: ir.Node, index: int, what: str) -> Array:
    """The contents of an input that must be constant."""
    array = constant_of(needed_value(node, index))
    if array is None:
        raise FormError(f"its {what} is computed, not constant", f"the {what} must be a constant")
    return array


def constant_ints(node: ir.Node, index: int) -> tuple[int, ...] | None:
    """A constant list of integers at an input; None if it is left out."""
    value = input_at(node, index)
    if value is None:
        return None
    array = constant_of(value)
    if array is None:
        raise FormError(
            f"its input {index} ('{value.name}') is computed, not constant",
            "fix the shape at export: every shape must be static",
        )
    return tuple(int(i) for i in np.asarray(array).reshape(-1))
