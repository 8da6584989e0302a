"""Reading QuantizeLinear and DequantizeLinear nodes, and what is known of ops around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from deploykit.errors import UnsupportedModelError
from deploykit.graph.op_facts import facts_of
from deploykit.graph.ops import ACTIVATION_CARRIERS, CLAMPS
from deploykit.graph.reading import constant_array, is_constant
from deploykit.tensors import Array, QuantParams

if TYPE_CHECKING:
    import onnx_ir as ir

QUANTIZE = "QuantizeLinear"
DEQUANTIZE = "DequantizeLinear"


def is_quantize(node: ir.Node) -> bool:
    """Whether a node is a QuantizeLinear of the default domain or onnxruntime's."""
    return node.op_type == QUANTIZE and node.domain in ("", "com.microsoft")


def is_dequantize(node: ir.Node) -> bool:
    """Whether a node is a DequantizeLinear of the default domain or onnxruntime's."""
    return node.op_type == DEQUANTIZE and node.domain in ("", "com.microsoft")


def integers_of(value: ir.Value | None) -> tuple[Array, QuantParams] | None:
    """The constant integers that a DequantizeLinear makes a value of, and their parameters.

    They may be stored as they are, or as reals behind a QuantizeLinear.
    """
    dequantize = value.producer() if value is not None else None
    if dequantize is None or not is_dequantize(dequantize):
        return None
    source = dequantize.inputs[0]
    integers, quantize = constant_array(source), source.producer() if source is not None else None
    params = read_params(dequantize)
    if integers is None and quantize is not None and is_quantize(quantize):
        reals = constant_array(quantize.inputs[0])
        integers = None if reals is None else read_params(quantize).quantize(reals)
    return None if integers is None else (integers, params)


def real_constant(value: ir.Value | None) -> Array | None:
    """A constant, or what a DequantizeLinear makes of one; None for a computed value."""
    found = constant_array(value)
    if found is None and (held := integers_of(value)) is not None:
        integers, params = held
        found = params.dequantize(integers)
    return found


def is_float(value: ir.Value) -> bool:
    """Whether a value holds float32; one without a type is taken to."""
    return value.dtype is None or value.dtype.name == "FLOAT"


def bias_index(node: ir.Node) -> int | None:
    """Index of the input that is the bias of a node's op; None if it has none."""
    op = facts_of(node)
    return None if op is None else op.bias


def is_structural(node: ir.Node, index: int) -> bool:
    """Whether input ``index`` is a parameter of the op (a bound, a pad value, int64 sizes)."""
    value = node.inputs[index]
    op = facts_of(node)
    if op is not None and index in op.structural:
        return True
    return value is not None and not is_float(value)


def data_inputs(node: ir.Node) -> list[ir.Value]:
    """The computed float inputs of a node, in order; an input read twice appears twice."""
    return [
        value
        for index, value in enumerate(node.inputs)
        if value is not None and not is_constant(value) and not is_structural(node, index)
    ]


def carries_activation(value: ir.Value) -> bool:
    """Whether only a Relu or Clip reads ``value``, which an op makes that computes it along."""
    producer = value.producer()
    uses = list(value.uses())
    return (
        producer is not None
        and producer.op_type in ACTIVATION_CARRIERS
        and len(uses) == 1
        and uses[0].idx == 0
        and uses[0].node.op_type in CLAMPS
        and not value.is_graph_output()
    )


def runs_in_integers(node: ir.Node, has_params: Callable[[ir.Value], bool]) -> bool:
    """Whether a node computes in integers, given which values have parameters.

    It does if all of its data inputs and all of its outputs that are read have parameters; a
    value between an op and the activation that it carries needs none.
    """
    inputs = data_inputs(node)
    outputs = [v for v in node.outputs if v.uses() or v.is_graph_output()]
    return (
        bool(inputs)
        and bool(outputs)
        and all(has_params(v) or _is_carried(v, has_params) for v in (*inputs, *outputs))
    )


def _is_carried(value: ir.Value, has_params: Callable[[ir.Value], bool]) -> bool:
    if not carries_activation(value):
        return False
    (use,) = value.uses()
    producer = value.producer()
    assert producer is not None
    return has_params(use.node.outputs[0]) and all(map(has_params, data_inputs(producer)))


def read_params(node: ir.Node) -> QuantParams:
    """Scale, zero point and axis of a QuantizeLinear or DequantizeLinear node.

    Raises:
        UnsupportedModelError: a computed scale, blocked quantization, or a dtype other than
            int8, uint8, int16 and int32.
    """
    name = node.name or node.outputs[0].name
    scale = constant_array(node.inputs[1])
    if scale is None:
        raise UnsupportedModelError(
            f"{node.op_type} '{name}' has a scale that is computed",
            expected="a constant scale: static quantization",
            advice="quantize the model statically, or give the float model and --int8",
        )
    block = node.attributes.get_int("block_size", 0)
    if block:
        raise UnsupportedModelError(
            f"{node.op_type} '{name}' is quantized in blocks of {block}",
            expected="one scale a tensor or one a channel",
        )
    dtype, zeros = _read_zero_point(node, name or "")
    scale = np.asarray(scale, dtype=np.float32)
    axis = None
    if scale.size > 1:
        rank = _rank(node)
        axis = node.attributes.get_int("axis", 1)
        axis = axis + rank if axis < 0 else axis
    flat = np.broadcast_to(zeros.ravel(), (scale.size,))
    return QuantParams(
        scale=tuple(float(s) for s in scale.ravel()),
        zero_point=tuple(int(z) for z in flat),
        dtype=dtype,
        axis=axis,
    )


def _read_zero_point(node: ir.Node, name: str) -> tuple[str, Array]:
    given = constant_array(node.inputs[2]) if len(node.inputs) > 2 else None
    if given is None and len(node.inputs) > 2 and node.inputs[2] is not None:
        raise UnsupportedModelError(f"{node.op_type} '{name}' has a zero point that is computed")
    if given is not None:
        dtype = str(given.dtype)
    elif is_dequantize(node) and node.inputs[0] is not None and node.inputs[0].dtype is not None:
        dtype = node.inputs[0].dtype.name.lower()
    else:
        dtype = "uint8"  # the specification's default
    if dtype not in ("int8", "uint8", "int16", "int32"):
        raise UnsupportedModelError(
            f"{node.op_type} '{name}' has dtype {dtype}",
            expected="int8, uint8, int16 or int32",
        )
    return dtype, np.zeros(1, dtype=np.int64) if given is None else np.asarray(given)


def _rank(node: ir.Node) -> int:
    value = node.inputs[0]
    if value is None or value.shape is None:
        raise UnsupportedModelError(
            f"{node.op_type} '{node.name}' has one scale a channel and an input without a shape",
            expected="a model with static shapes",
        )
    return len(value.shape)
