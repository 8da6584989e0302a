"""From a stage's graph to a `TfliteGraph`: checks first, all failures at once, then lowering."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from deploykit.errors import UnsupportedModelError, UnsupportedOp, UnsupportedOpsError
from deploykit.graph.node_fields import FormError, needed_array, shape_of
from deploykit.graph.provenance import module_path
from deploykit.model import Precision
from deploykit.tensors import Array, Layout, QuantParams

# Registers every lowering function.
from deploykit_tflite import (  # noqa: F401
    layout,
    lower_activation,
    lower_convolution,
    lower_elementwise,
    lower_linear,
    lower_pooling,
    lower_resize,
    lower_shape,
    lower_shuffle,
)
from deploykit_tflite.lowering_context import TABLE, LoweringContext
from deploykit_tflite.options import WriteOptions
from deploykit_tflite.plan_fusions import plan_fusions
from deploykit_tflite.tflite_graph import TfliteGraph

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir


@dataclass(frozen=True)
class StageGraph:
    """What is lowered.

    Attributes:
        model: Float-shaped canonical graph.
        params: Value name → quantization; empty for a float stage.
        integers: Constant name → its integers.
        runs_in_integers: Whether a node computes in integers.
    """

    model: ir.Model
    runs_in_integers: Callable[[ir.Node], bool]
    params: Mapping[str, QuantParams] = field(default_factory=dict)
    integers: Mapping[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class LoweredGraph:
    """What came of it.

    Attributes:
        graph: The TFLite graph.
        value_tensors: Value name → index of the tensor that holds it.
        value_ranks: Value name → rank.
    """

    graph: TfliteGraph
    value_tensors: Mapping[str, int]
    value_ranks: Mapping[str, int]


def lower_graph(stage: StageGraph, precision: Precision, options: WriteOptions) -> LoweredGraph:
    """Lower a whole graph.

    Raises:
        UnsupportedOpsError: with every node that has no lowering, or none for its form.
    """
    nodes = list(stage.model.graph)
    TABLE.check(nodes)
    plan = plan_fusions(stage.model.graph, stage.params, stage.runs_in_integers)
    graph = TfliteGraph()
    context = LoweringContext(graph, precision, stage.params, stage.integers, plan)
    _add_inputs(stage, context, options)
    failures: list[UnsupportedOp] = []
    for node in nodes:
        if node in plan.absorbed:
            continue
        context.begin(node, integer=stage.runs_in_integers(node))
        try:
            TABLE.function_for(node)(node, context)
            context.end()
        except FormError as error:
            op = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
            failures.append(
                UnsupportedOp(op, node.name or "", module_path(node), error.reason, error.advice)
            )
            _stand_in(node, context)
    if failures:
        raise UnsupportedOpsError(TABLE.target, failures)
    values = {name: t for name, t in context.tensors.items() if name not in context.unlike}
    _add_outputs(stage, context, options)
    ranks = {
        v.name or "": len(shape_of(v))
        for v in [*stage.model.graph.inputs, *(o for n in nodes for o in n.outputs)]
        if (v.name or "") in values
    }
    return LoweredGraph(graph, values, ranks)


def _stand_in(node: ir.Node, context: LoweringContext) -> None:
    """Tensors for what a failed node would have written, so that later failures are found too."""
    for index in range(len(node.outputs)):
        value = context.final_value(node, index)
        if (value.name or "") in context.tensors or value.shape is None:
            continue
        if value.shape.is_static():
            shape = layout.held_shape(shape_of(value))
            context.bind(value, context.new(value.name or "", shape))


def _add_inputs(stage: StageGraph, context: LoweringContext, options: WriteOptions) -> None:
    graph = context.graph
    for value in stage.model.graph.inputs:
        name = value.name or "input"
        shape = shape_of(value)
        if value.dtype is not None and value.dtype.name != "FLOAT":
            raise UnsupportedModelError(
                f"the input '{name}' has dtype {value.dtype.name.lower()}",
                expected="float32 inputs",
            )
        inner = context.params.get(name)
        outer = options.outer_params(inner, f"input '{name}'")
        keeps_nchw = options.input_layout == "NCHW" and len(shape) == layout.HELD_RANK
        held = shape if keeps_nchw else layout.held_shape(shape)
        tensor = context.new(name, held, outer)
        graph.inputs.append(tensor)
        graph.input_layouts.append(_layout(len(shape), nchw=keeps_nchw))
        if inner != outer:
            target = context.new(f"{name}/quantized", held, inner)
            context.emit("QUANTIZE", (tensor,), (target,), "QuantizeOptions")
            tensor = target
        if keeps_nchw:
            tensor = context.transposed(tensor, layout.NHWC_FROM_NCHW)
        context.bind(value, tensor)


def _add_outputs(stage: StageGraph, context: LoweringContext, options: WriteOptions) -> None:
    graph = context.graph
    for value in stage.model.graph.outputs:
        name = value.name or "output"
        if name not in context.tensors:  # an output that is a constant
            array = np.asarray(needed_array(value), np.float32)
            held = array.transpose(layout.held_order(array.ndim))
            context.bind(value, graph.add_constant(name, np.asarray(held, order="C")))
        tensor = context.tensors[name]
        inner = graph.tensors[tensor].quantization
        outer = options.outer_params(inner, f"output '{name}'")
        if inner != outer or tensor in graph.inputs or tensor in graph.outputs:
            if tensor not in graph.inputs and tensor not in graph.outputs:
                graph.rename(tensor, f"{name}/quantized")
            target = context.new(name, graph.tensors[tensor].shape, outer)
            if inner == outer:
                context.reshape(tensor, target)
            elif outer is None:
                context.emit("DEQUANTIZE", (tensor,), (target,), "DequantizeOptions")
            else:
                context.emit("QUANTIZE", (tensor,), (target,), "QuantizeOptions")
            tensor = target
        graph.outputs.append(tensor)
        graph.output_layouts.append(_layout(len(graph.tensors[tensor].shape), nchw=False))


def _layout(rank: int, *, nchw: bool) -> Layout:
    if rank != layout.HELD_RANK:
        return "plain"
    return "NCHW" if nchw else "NHWC"
