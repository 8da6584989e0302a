"""Reading what a lowering needs of a canonical node; what is not there is a `FormError`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploykit.errors import UnsupportedModelError
from deploykit.graph.reading import constant_array, input_at, static_shape
from deploykit.tensors import Array

if TYPE_CHECKING:
    import onnx_ir as ir


class FormError(UnsupportedModelError):
    """This form of an op has no lowering; a target's driver collects all of them.

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


def needed_int(node: ir.Node, name: str) -> int:
    """An integer attribute that must be there."""
    return _needed_attribute(node, name).as_int()


def needed_ints(node: ir.Node, name: str) -> tuple[int, ...]:
    """An attribute that is a list of integers, and must be there."""
    return tuple(_needed_attribute(node, name).as_ints())


def shape_of(value: ir.Value) -> tuple[int, ...]:
    """The static shape of a value, batch axis included."""
    shape = static_shape(value)
    if shape is None:
        found = "unknown shape" if value.shape is None else f"dynamic shape {value.shape}"
        raise FormError(
            f"'{value.name}' has the {found}", "fix the input shape, e.g. --input 1x3x224x224"
        )
    return shape


def needed_constant(node: ir.Node, index: int, what: str) -> Array:
    """The contents of an input that must be constant."""
    array = constant_array(needed_value(node, index))
    if array is None:
        raise FormError(f"its {what} is computed, not constant", f"the {what} must be a constant")
    return array


def needed_array(value: ir.Value) -> Array:
    """The contents of a value that no node makes: an output of the graph that is a constant."""
    array = constant_array(value)
    if array is None:
        raise FormError(f"nothing makes '{value.name}'", "it is not in canonical form")
    return array


def refuse_open_window(node: ir.Node) -> None:
    """Refuse a convolution or pool whose pads are left for the runtime to find.

    Canonical ones have explicit pads; what `canonicalize` could not spell keeps these attributes.
    """
    for name in ("auto_pad", "output_shape", "ceil_mode"):
        attribute = node.attributes.get(name)
        if attribute is None or attribute.value in (0, "NOTSET", ""):
            continue
        raise FormError(
            f"{name} {attribute.value} has no form in explicit pads",
            "export it with explicit pads that stay inside of the kernel",
        )


def constant_ints(node: ir.Node, index: int) -> tuple[int, ...] | None:
    """A constant list of integers at an input; None if it is omitted."""
    value = input_at(node, index)
    if value is None:
        return None
    array = constant_array(value)
    if array is None:
        raise FormError(
            f"its input {index} ('{value.name}') is computed, not constant",
            "fix the shape at export: every shape must be static",
        )
    return tuple(int(i) for i in array.reshape(-1))


def _needed_attribute(node: ir.Node, name: str) -> ir.Attr:
    attribute = node.attributes.get(name)
    if attribute is None:
        raise FormError(f"it has no attribute '{name}'", "it is not in canonical form")
    return attribute
