"""Nodes whose inputs are all constant, computed with numpy.

These are the ops with which exporters compute shapes, axes, scalars and default tensors; what a
network computes with is not among them. The semantics are those of the ONNX operator
specification; integer division truncates towards zero as it does there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from deploykit.graph.reading import read_float, read_int, read_ints, static_shape
from deploykit.tensors import Array

if TYPE_CHECKING:
    import onnx_ir as ir

Arrays = Sequence[Array | None]
Evaluator = Callable[["ir.Node", Arrays], list[Array]]

EVALUATORS: dict[str, Evaluator] = {}

#: A result larger than this is folded only if an input is as large: folding an Expand into a
#: tensor of megabytes makes a file larger, not faster.
LARGEST_GROWTH = 1 << 16


class CannotEvaluate(Exception):  # noqa: N818 - it is a signal to the caller, who gives the reason
    """The node is not one that numpy can compute here; its text says why."""


def _register(*op_types: str) -> Callable[[Evaluator], Evaluator]:
    def decorate(function: Evaluator) -> Evaluator:
        for op_type in op_types:
            if op_type in EVALUATORS:
                raise ValueError(f"{op_type} has two evaluators")
            EVALUATORS[op_type] = function
        return function

    return decorate


def evaluate(node: ir.Node, inputs: Arrays) -> list[Array]:
    """The outputs of a node.

    Args:
        node: A node of the default domain.
        inputs: Its inputs, None where one is omitted. `Shape`, `Size` and `CastLike` read only
            the shape or dtype of some inputs, and accept None for those.

    Returns:
        One array an output, in the dtype that the specification gives.

    Raises:
        CannotEvaluate: no evaluator, or none for these attributes.
    """
    function = EVALUATORS.get(node.op_type) if node.domain == "" else None
    if function is None:
        raise CannotEvaluate(f"{node.op_type} is not computed at conversion")
    return [np.asarray(array) for array in function(node, inputs)]


def constant_of_attributes(node: ir.Node) -> Array:
    """The tensor of a `Constant` node.

    Raises:
        CannotEvaluate: a string or sparse constant.
    """
    for name, attribute in node.attributes.items():
        if name == "value":
            return attribute.as_tensor().numpy()
        if name == "value_float":
            return np.array(attribute.as_float(), dtype=np.float32)
        if name == "value_floats":
            return np.array(attribute.as_floats(), dtype=np.float32)
        if name == "value_int":
            return np.array(attribute.as_int(), dtype=np.int64)
        if name == "value_ints":
            return np.array(attribute.as_ints(), dtype=np.int64)
    raise CannotEvaluate("a constant that holds no numbers")


def _needed(inputs: Arrays, index: int) -> Array:
    array = inputs[index] if index < len(inputs) else None
    if array is None:
        raise CannotEvaluate(f"input {index} is not constant")
    return array


def _ints(inputs: Arrays, index: int) -> tuple[int, ...] | None:
    array = inputs[index] if index < len(inputs) else None
    return None if array is None else tuple(int(i) for i in array.reshape(-1))


def _may_grow(shape: Sequence[int], source: Array) -> None:
    size = int(np.prod(shape, dtype=np.int64))
    if size > max(LARGEST_GROWTH, source.size):
        raise CannotEvaluate(f"the result would have {size} elements")


@_register("Constant")
def _constant(node: ir.Node, inputs: Arrays) -> list[Array]:
    return [constant_of_attributes(node)]


@_register("Identity", "Dropout")
def _identity(node: ir.Node, inputs: Arrays) -> list[Array]:
    if len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output()):
        raise CannotEvaluate("its mask is read")
    return [_needed(inputs, 0)] * len(node.outputs)


@_register("Shape")
def _shape(node: ir.Node, inputs: Arrays) -> list[Array]:
    array = inputs[0]
    shape = array.shape if array is not None else static_shape(node.inputs[0])
    if shape is None:
        raise CannotEvaluate("the shape is not static")
    start, end = read_int(node, "start", 0), read_int(node, "end", len(shape))
    return [np.array(shape[start:end], dtype=np.int64)]


@_register("Size")
def _size(node: ir.Node, inputs: Arrays) -> list[Array]:
    array = inputs[0]
    shape = array.shape if array is not None else static_shape(node.inputs[0])
    if shape is None:
        raise CannotEvaluate("the shape is not static")
    return [np.array(np.prod(shape, dtype=np.int64), dtype=np.int64)]


@_register("Cast")
def _cast(node: ir.Node, inputs: Arrays) -> list[Array]:
    import onnx_ir as ir

    return [_needed(inputs, 0).astype(ir.DataType(read_int(node, "to", 1)).numpy())]


@_register("CastLike")
def _cast_like(node: ir.Node, inputs: Arrays) -> list[Array]:
    like = node.inputs[1]
    if like is None or like.dtype is None:
        raise CannotEvaluate("the dtype to cast to is not known")
    return [_needed(inputs, 0).astype(like.dtype.numpy())]


@_register("Reshape")
def _reshape(node: ir.Node, inputs: Arrays) -> list[Array]:
    data, wanted = _needed(inputs, 0), _ints(inputs, 1)
    if wanted is None:
        raise CannotEvaluate("its shape is not constant")
    if not read_int(node, "allowzero", 0):
        wanted = tuple(data.shape[i] if d == 0 else d for i, d in enumerate(wanted))
    return [data.reshape(wanted)]


@_register("Flatten")
def _flatten(node: ir.Node, inputs: Arrays) -> list[Array]:
    data, axis = _needed(inputs, 0), read_int(node, "axis", 1)
    rows = int(np.prod(data.shape[:axis], dtype=np.int64))
    return [data.reshape(rows, -1)]


@_register("Unsqueeze")
def _unsqueeze(node: ir.Node, inputs: Arrays) -> list[Array]:
    axes = _ints(inputs, 1) or read_ints(node, "axes", ())
    return [np.expand_dims(_needed(inputs, 0), axes)]


@_register("Squeeze")
def _squeeze(node: ir.Node, inputs: Arrays) -> list[Array]:
    axes = _ints(inputs, 1) or read_ints(node, "axes", ())
    return [np.squeeze(_needed(inputs, 0), axes or None)]


@_register("Transpose")
def _transpose(node: ir.Node, inputs: Arrays) -> list[Array]:
    data = _needed(inputs, 0)
    perm = read_ints(node, "perm", tuple(reversed(range(data.ndim))))
    return [np.ascontiguousarray(data.transpose(perm)).reshape([data.shape[p] for p in perm])]


@_register("Concat")
def _concat(node: ir.Node, inputs: Arrays) -> list[Array]:
    parts = [_needed(inputs, i) for i in range(len(inputs))]
    return [np.concatenate(parts, axis=read_int(node, "axis", 0))]


@_register("Slice")
def _slice(node: ir.Node, inputs: Arrays) -> list[Array]:
    data, starts, ends = _needed(inputs, 0), _ints(inputs, 1), _ints(inputs, 2)
    if starts is None or ends is None:
        raise CannotEvaluate("its bounds are not constant")
    axes = _ints(inputs, 3) or tuple(range(len(starts)))
    steps = _ints(inputs, 4) or (1,) * len(starts)
    index = [slice(None)] * data.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        extent = data.shape[axis]
        # A negative end below -extent means "to the very start" when walking backwards.
        stop = None if step < 0 and end < -extent else end
        index[axis] = slice(start, stop, step)
    return [data[tuple(index)]]


@_register("Gather")
def _gather(node: ir.Node, inputs: Arrays) -> list[Array]:
    data, indices = _needed(inputs, 0), _needed(inputs, 1)
    return [np.take(data, indices.astype(np.int64), axis=read_int(node, "axis", 0))]


@_register("Expand")
def _expand(node: ir.Node, inputs: Arrays) -> list[Array]:
    data, wanted = _needed(inputs, 0), _ints(inputs, 1)
    if wanted is None:
        raise CannotEvaluate("its shape is not constant")
    shape = np.broadcast_shapes(data.shape, wanted)
    _may_grow(shape, data)
    return [np.broadcast_to(data, shape).copy()]


@_register("ConstantOfShape")
def _constant_of_shape(node: ir.Node, inputs: Arrays) -> list[Array]:
    shape = _ints(inputs, 0)
    if shape is None:
        raise CannotEvaluate("its shape is not constant")
    value = node.attributes.get("value")
    fill = np.zeros(1, np.float32) if value is None else value.as_tensor().numpy()
    _may_grow(shape, fill)
    return [np.full(shape, fill.reshape(-1)[0], dtype=fill.dtype)]


@_register("Range")
def _range(node: ir.Node, inputs: Arrays) -> list[Array]:
    start, limit, delta = (_needed(inputs, i) for i in range(3))
    length = max(0, int(np.ceil((float(limit) - float(start)) / float(delta))))
    _may_grow((length,), start)
    return [(np.arange(length) * delta + start).astype(start.dtype)]


@_register("Split")
def _split(node: ir.Node, inputs: Arrays) -> list[Array]:
    data, axis = _needed(inputs, 0), read_int(node, "axis", 0)
    sizes = _ints(inputs, 1) or read_ints(node, "split", ())
    if not sizes:
        count, extent = len(node.outputs), data.shape[axis]
        chunk = -(-extent // count)
        sizes = (*([chunk] * (count - 1)), extent - chunk * (count - 1))
    return list(np.split(data, np.cumsum(sizes)[:-1], axis=axis))


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind in "iu":
        quotient = np.abs(a) // np.abs(b)
        return np.where((a < 0) != (b < 0), -quotient, quotient).astype(a.dtype)
    return a / b


_BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": _divide,
    "Pow": lambda a, b: np.power(a, b).astype(a.dtype),
    "Equal": np.equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "And": np.logical_and,
    "Or": np.logical_or,
    "Xor": np.logical_xor,
}

_UNARY: dict[str, Callable[[Array], Array]] = {
    "Neg": np.negative,
    "Abs": np.abs,
    "Sqrt": np.sqrt,
    "Exp": np.exp,
    "Log": np.log,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Not": np.logical_not,
    "Reciprocal": lambda a: (1 / a).astype(a.dtype),
}


@_register(*_BINARY)
def _binary(node: ir.Node, inputs: Arrays) -> list[Array]:
    a, b = _needed(inputs, 0), _needed(inputs, 1)
    with np.errstate(all="ignore"):  # an infinity or NaN is what the runtime would give as well
        return [_BINARY[node.op_type](a, b)]


@_register(*_UNARY)
def _unary(node: ir.Node, inputs: Arrays) -> list[Array]:
    with np.errstate(all="ignore"):
        return [_UNARY[node.op_type](_needed(inputs, 0))]


@_register("Min", "Max")
def _extreme(node: ir.Node, inputs: Arrays) -> list[Array]:
    choose = np.minimum if node.op_type == "Min" else np.maximum
    result = _needed(inputs, 0)
    for index in range(1, len(inputs)):
        result = choose(result, _needed(inputs, index))
    return [result]


@_register("Where")
def _where(node: ir.Node, inputs: Arrays) -> list[Array]:
    return [np.where(_needed(inputs, 0), _needed(inputs, 1), _needed(inputs, 2))]


_REDUCTIONS: dict[str, Callable[..., Array]] = {
    "ReduceProd": np.prod,
    "ReduceSum": np.sum,
    "ReduceMax": np.max,
    "ReduceMin": np.min,
}


@_register(*_REDUCTIONS)
def _reduce(node: ir.Node, inputs: Arrays) -> list[Array]:
    data = _needed(inputs, 0)
    axes = _ints(inputs, 1) or read_ints(node, "axes", ())
    if not axes and read_int(node, "noop_with_empty_axes", 0):
        return [data]
    reduce = _REDUCTIONS[node.op_type]
    keep = bool(read_int(node, "keepdims", 1))
    result = reduce(data, axis=axes or None, keepdims=keep)
    return [np.asarray(result, dtype=data.dtype)]


@_register("Gemm", "MatMul")
def _product(node: ir.Node, inputs: Arrays) -> list[Array]:
    a, b = _needed(inputs, 0), _needed(inputs, 1)
    if node.op_type == "MatMul":
        return [np.matmul(a, b)]
    a = a.T if read_int(node, "transA", 0) else a
    b = b.T if read_int(node, "transB", 0) else b
    product = np.matmul(a, b) * a.dtype.type(read_float(node, "alpha", 1.0))
    if len(inputs) > 2 and inputs[2] is not None:
        product = product + inputs[2] * a.dtype.type(read_float(node, "beta", 1.0))
    return [product]
