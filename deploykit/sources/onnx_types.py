"""Element types of ONNX files: what is read as float32 though the file says otherwise.

1.  float16 and bfloat16 weights, values, inputs and outputs become float32, which holds every one
    of their numbers.
2.  An input of integers that the graph turns into floats (a Cast, perhaps behind ops that only move
    values) becomes an input of floats: pixels 0..255 stay 0..255.
3.  An input of integers that is dequantized becomes an input of floats behind a QuantizeLinear of
    the same scale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deploykit.graph.read_qdq import QUANTIZE, is_dequantize
from deploykit.graph.reading import input_at
from deploykit.passes.base import Findings

if TYPE_CHECKING:
    import onnx_ir as ir

_HALVES = ("FLOAT16", "BFLOAT16")
_MOVING = frozenset(
    {"Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
)
_INTEGER_OPS = ("QLinearConv", "QLinearMatMul", "QLinearAdd", "QLinearMul", "QGemm")


def widen_floats(model: ir.Model, findings: Findings) -> None:
    """Case 1, in place."""
    import onnx_ir as ir

    graph = model.graph
    values = [*graph.inputs, *(v for node in graph.all_nodes() for v in node.outputs)]
    held = [v for v in graph.initializers.values() if _is_half(v.const_value)]
    halves = [v for v in values if v.dtype is not None and v.dtype.name in _HALVES]
    if not held and not halves:
        return
    for value in halves:
        value.type = ir.TensorType(ir.DataType.FLOAT)
    for value in held:
        value.const_value = _widened(value.const_value, value.name or "")
        value.type = ir.TensorType(ir.DataType.FLOAT)
    for node in graph.all_nodes():
        for name, attribute in list(node.attributes.items()):
            if attribute.type == ir.AttributeType.TENSOR and _is_half(attribute.value):
                node.attributes[name] = ir.AttrTensor(name, _widened(attribute.value, name))
            elif name == "to" and ir.DataType(attribute.as_int()).name in _HALVES:
                node.attributes[name] = ir.AttrInt64(name, int(ir.DataType.FLOAT))
    findings.matched("model", f"{len(held)} float16 constants > float32, the same numbers")


def _is_half(tensor: ir.TensorProtocol | None) -> bool:
    return tensor is not None and tensor.dtype.name in _HALVES


def _widened(tensor: ir.TensorProtocol | None, name: str) -> ir.TensorProtocol:
    import onnx_ir as ir

    assert tensor is not None
    return ir.Tensor(np.asarray(tensor.numpy()).astype(np.float32), name=name)


def read_inputs_as_floats(graph: ir.Graph, findings: Findings) -> None:
    """Cases 2 and 3, in place; an input that is neither stays as it is."""
    import onnx_ir as ir

    for value in graph.inputs:
        dtype = value.dtype
        if dtype is None or dtype == ir.DataType.FLOAT or dtype.name in ("STRING", "UNDEFINED"):
            continue
        name = dtype.name.lower()
        moved: list[ir.Value] = []
        casts: list[ir.Node] = []
        if _find_casts(value, moved, casts):
            for one in (value, *moved):
                one.type = ir.TensorType(ir.DataType.FLOAT)
            for cast in casts:
                _take_out(graph, cast)
            findings.matched(value.name or "", f"an input of {name} that is cast > float32")
        elif _quantize_behind(graph, value):
            findings.matched(value.name or "", f"an input of {name} > QuantizeLinear of float32")


def _find_casts(value: ir.Value, moved: list[ir.Value], casts: list[ir.Node]) -> bool:
    """Whether all that reads ``value`` casts it to float32; collects what lies between."""
    import onnx_ir as ir

    uses = value.uses()
    if not uses or value.is_graph_output():
        return False
    for use in uses:
        node = use.node
        if node.domain:
            return False
        if node.op_type == "Cast" and node.attributes.get_int("to") == ir.DataType.FLOAT:
            casts.append(node)
        elif node.op_type in _MOVING and use.idx == 0:
            moved.extend(node.outputs)
            if not all(_find_casts(output, moved, casts) for output in node.outputs):
                return False
        else:
            return False
    return True


def _take_out(graph: ir.Graph, cast: ir.Node) -> None:
    source, output = cast.inputs[0], cast.outputs[0]
    assert source is not None
    if output.is_graph_output():  # both names have to exist
        return
    output.replace_all_uses_with(source)
    graph.remove(cast, safe=True)


def _quantize_behind(graph: ir.Graph, value: ir.Value) -> bool:
    """Case 3."""
    import onnx_ir as ir

    uses = tuple(value.uses())
    readers = [use.node for use in uses]
    known = all(
        use.idx == 0 and (is_dequantize(use.node) or use.node.op_type in _INTEGER_OPS)
        for use in uses
    )
    if not uses or not known or value.is_graph_output():
        return False
    steps = [input_at(readers[0], 1), input_at(readers[0], 2)]
    if steps[0] is None:
        return False
    integers = ir.Value(name=f"{value.name}_integers", shape=value.shape, type=value.type)
    value.type = ir.TensorType(ir.DataType.FLOAT)
    inputs = [value, *(s for s in steps if s is not None)]
    quantize = ir.Node("", QUANTIZE, inputs, outputs=[integers], name=f"{value.name}_quantize")
    graph.insert_before(graph[0], quantize)
    for use in uses:
        use.node.replace_input_with(use.idx, integers)
    return True
