"""Reading a graph in plain Python: shapes, attributes, constants, readers of a value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deploykit.tensors import Array

if TYPE_CHECKING:
    import onnx_ir as ir


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape of a value, or None if it is unknown or has a dimension that is no number."""
    if value is None or value.shape is None:
        return None
    dims = value.shape.dims
    shape = tuple(d for d in dims if isinstance(d, int))
    return shape if len(shape) == len(dims) else None


def known_shape(value: ir.Value | None) -> tuple[int, ...]:
    """The shape of a value in a graph for which ``static_shapes`` holds.

    Raises:
        ValueError: the shape is not static (a bug: `InferShapes` has to run first).
    """
    shape = static_shape(value)
    if shape is None:
        raise ValueError(f"the shape of {value!r} is not static")
    return shape


def input_at(node: ir.Node, index: int) -> ir.Value | None:
    """An input of a node; None where it is omitted."""
    return node.inputs[index] if index < len(node.inputs) else None


def is_constant(value: ir.Value | None) -> bool:
    """Whether a value is fixed: an initializer that is no input of the graph, or a Constant node's.

    Nothing of its elements is read.
    """
    if value is None:
        return False
    maker = value.producer()
    if maker is not None:
        return is_op(maker, "Constant")
    return value.const_value is not None and not value.is_graph_input()


def constant_array(value: ir.Value | None) -> Array | None:
    """The elements of a value that `is_constant`, not to be written to; None for any other."""
    import onnx_ir as ir

    if value is None or not is_constant(value):
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def constant_scalar(value: ir.Value | None) -> float | None:
    """The one number that a constant holds, whatever its rank; None for any other value.

    A constant of several equal elements is no scalar: `uniform_constant` reads those.
    """
    if value is None or not is_constant(value):
        return None
    shape = static_shape(value)
    if shape is not None and any(d != 1 for d in shape):
        return None
    array = constant_array(value)
    return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None


def uniform_constant(value: ir.Value | None) -> float | None:
    """The number that all elements of a constant equal; None if there is no such number."""
    array = constant_array(value)
    if array is None or array.size == 0 or array.dtype.kind not in "fiu":
        return None
    flat = array.reshape(-1)
    first = flat[0]
    return float(first) if bool(np.all(flat == first)) else None


def constant_ints(value: ir.Value | None) -> tuple[int, ...] | None:
    """The elements of a constant integer vector; None for any other value."""
    array = constant_array(value)
    if array is None or array.dtype.kind not in "iu":
        return None
    return tuple(int(i) for i in array.reshape(-1))


def read_int(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute, or its default."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def read_ints(node: ir.Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """An attribute that is a list of integers, or its default."""
    attribute = node.attributes.get(name)
    return default if attribute is None else tuple(attribute.as_ints())


def read_float(node: ir.Node, name: str, default: float) -> float:
    """A float attribute, or its default."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_float()


def read_string(node: ir.Node, name: str, default: str) -> str:
    """A string attribute, or its default."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_string()


def is_op(node: ir.Node | None, *op_types: str, domain: str = "") -> bool:
    """Whether a node is one of these ops."""
    return node is not None and node.domain == domain and node.op_type in op_types


def producer_of(value: ir.Value | None, *op_types: str, domain: str = "") -> ir.Node | None:
    """The node that makes a value, if it is one of these ops (or any op, if none is named)."""
    node = value.producer() if value is not None else None
    if node is None or (op_types and not is_op(node, *op_types, domain=domain)):
        return None
    return node


def only_reader(value: ir.Value) -> ir.Node | None:
    """The node that is the one and only reader of a value that is no output of the graph."""
    uses = value.uses()
    if len(uses) != 1 or value.is_graph_output():
        return None
    return next(iter(uses)).node


def why_not_private(value: ir.Value) -> str:
    """Why a value cannot vanish into a fused node: empty if its one reader is all that needs it."""
    if value.is_graph_output():
        return "a value in between is an output of the graph"
    readers = len(value.uses())
    if readers != 1:
        return f"a value in between has {readers} readers"
    return ""
