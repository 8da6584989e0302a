"""Reading the attributes and constant inputs of a canonical node, with types."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deploykit.errors import UnsupportedModelError
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


def int_field(node: ir.Node, name: str, default: int | None = None) -> int:
    """An integer attribute."""
    attribute = node.attributes.get(name)
    if attribute is None:
        if default is None:
            raise FormError(f"it has no attribute '{name}'", "it is not in canonical form")
        return default
    return int(attribute.as_int())


def ints_field(node: ir.Node, name: str, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
    """An attribute that is a list of integers."""
    attribute = node.attributes.get(name)
    if attribute is None:
        if default is None:
            raise FormError(f"it has no attribute '{name}'", "it is not in canonical form")
        return default
    return tuple(int(i) for i in attribute.as_ints())


def float_field(node: ir.Node, name: str, default: float) -> float:
    """A float attribute."""
    attribute = node.attributes.get(name)
    return default if attribute is None else float(attribute.as_float())


def text_field(node: ir.Node, name: str, default: str) -> str:
    """A string attribute."""
    attribute = node.attributes.get(name)
    return default if attribute is None else str(attribute.as_string())


def input_value(node: ir.Node, index: int) -> ir.Value:
    """An input that must be there."""
    value = optional_value(node, index)
    if value is None:
        raise FormError(f"its input {index} is missing", "it is not in canonical form")
    return value


def optional_value(node: ir.Node, index: int) -> ir.Value | None:
    """An input that may be left out."""
    return node.inputs[index] if len(node.inputs) > index else None


def is_constant(value: ir.Value | None) -> bool:
    """Whether a value is an initializer; reads nothing of it."""
    if value is None or value.const_value is None:
        return False
    return value.producer() is None and not value.is_graph_input()


def constant_array(value: ir.Value | None) -> Array | None:
    """The contents of an initializer; None for a value that is computed or left out."""
    if value is None or value.const_value is None or not is_constant(value):
        return None
    return np.asarray(value.const_value.numpy())


def constant_ints(node: ir.Node, index: int) -> tuple[int, ...] | None:
    """An input that is a constant list of integers; None if it is left out."""
    value = optional_value(node, index)
    if value is None:
        return None
    array = constant_array(value)
    if array is None:
        raise FormError(
            f"its input {index} ('{value.name}') is computed, not constant",
            "fix the shape at export: every shape must be static",
        )
    return tuple(int(i) for i in array.reshape(-1))


def scalar_constant(value: ir.Value) -> float | None:
    """The number in a constant of one element; None for anything else."""
    array = constant_array(value)
    return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None


def static_shape(value: ir.Value) -> tuple[int, ...]:
    """The shape of a value.

    Raises:
        FormError: it is unknown or has a dynamic axis.
    """
    if value.shape is None:
        raise FormError(f"the shape of '{value.name}' is unknown", "fix the input shape")
    if not value.shape.is_static():
        raise FormError(
            f"'{value.name}' has the dynamic shape {value.shape}",
            "fix the input shape, e.g. --input 1x3x224x224",
        )
    return tuple(int(d) for d in value.shape.numpy())
