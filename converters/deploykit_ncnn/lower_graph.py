"""From a stage's graph to layers: checks first, all failures at once, then lowering."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploykit.errors import UnsupportedModelError, UnsupportedOp, UnsupportedOpsError
from deploykit.graph.node_fields import FormError, shape_of
from deploykit.graph.provenance import module_path
from deploykit.lowering import LoweringTable
from deploykit.tensors import QuantParams

# Registers every lowering function.
from deploykit_ncnn import (  # noqa: F401
    lower_activation,
    lower_convolution,
    lower_elementwise,
    lower_linear,
    lower_pooling,
    lower_resize,
    lower_shape,
    lower_shuffle,
)
from deploykit_ncnn.blob_axes import Shape, blob_shape, length_params
from deploykit_ncnn.layer_graph import Layer, split_shared_blobs
from deploykit_ncnn.lower_convolution import reads_integers
from deploykit_ncnn.lowering_context import TABLE, Lower, LoweringContext
from deploykit_ncnn.options import WriteOptions
from deploykit_ncnn.plan_fusions import plan_fusions
from deploykit_ncnn.plan_vectors import plan_vectors
from deploykit_ncnn.quantized_inputs import QuantizedInputs, read_quantized_inputs

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class LoweredGraph:
    """What came of it.

    Attributes:
        layers: In the order of the file.
        inputs: Value name → blob, of the model's inputs.
        outputs: Value name → blob, of its outputs.
        blobs: Value name of the stage → blob that holds it; also the inputs and outputs.
        shapes: Blob → shape, for those.
        integers: Blob → quantization, where layers hand on integers.
    """

    layers: tuple[Layer, ...]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    blobs: Mapping[str, str]
    shapes: Mapping[str, Shape]
    integers: Mapping[str, QuantParams]


def lowering_table() -> LoweringTable[Lower]:
    """The table, with every lowering function registered."""
    return TABLE


def lower_graph(model: ir.Model, options: WriteOptions) -> LoweredGraph:
    """Lower a whole graph.

    Args:
        model: A float stage, or a quantized one of the form of `quantized_inputs`.
        options: What is wanted.

    Raises:
        UnsupportedOpsError: with every node that has no lowering, or none for its form.
        UnsupportedModelError: an input that is not float32, or has another batch than 1.
        ContractError: the stage is quantized otherwise.
    """
    graph = model.graph
    quantized = read_quantized_inputs(graph)
    nodes = [node for node in graph if node not in quantized.nodes]
    TABLE.check(nodes)
    vectors = plan_vectors(graph)
    plan = plan_fusions(
        graph,
        quantized,
        requantize=options.requantize,
        reads_integers=lambda node: reads_integers(node) and node.outputs[0] not in vectors,
    )
    context = LoweringContext(plan, quantized, vectors, options.fp16_workaround)
    inputs = _bind_inputs(graph, context)
    absorbed = set(plan.activations.values())
    _lower_nodes([node for node in nodes if node not in absorbed], context)
    _hold_constant_outputs(graph, context)
    ends = {f"out{i}": context.blobs[v.name or ""] for i, v in enumerate(graph.outputs)}
    layers = split_shared_blobs(context.layers, ends)
    outputs = {v.name or "": f"out{i}" for i, v in enumerate(graph.outputs)}
    return _describe(graph, context, layers, inputs, outputs)


def _bind_inputs(graph: ir.Graph, context: LoweringContext) -> dict[str, str]:
    """An Input layer for each input, with its shape."""
    found = {}
    for index, value in enumerate(graph.inputs):
        if value.dtype is not None and value.dtype.name != "FLOAT":
            raise UnsupportedModelError(
                f"input '{value.name}' is {value.dtype.name.lower()}",
                expected="float32 inputs: ncnn computes in floats",
                advice="leave conversions of types to the app",
            )
        shape = blob_shape(shape_of(value), f"the input '{value.name}'")
        name = f"in{index}"
        (blob,) = context.emit("Input", value.name or name, (), [name], length_params(shape))
        context.bind(value, blob)
        found[value.name or ""] = blob
    return found


def _lower_nodes(nodes: list[ir.Node], context: LoweringContext) -> None:
    failures: list[UnsupportedOp] = []
    for node in nodes:
        try:
            TABLE.function_for(node)(node, context)
        except FormError as error:
            op = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
            failures.append(
                UnsupportedOp(op, node.name or "", module_path(node), error.reason, error.advice)
            )
            activation = context.plan.activations.get(node)
            for value in (activation or node).outputs:  # so that later failures are found too
                context.bind(value, f"{value.name}_missing")
    if failures:
        raise UnsupportedOpsError(TABLE.target, failures)


def _hold_constant_outputs(graph: ir.Graph, context: LoweringContext) -> None:
    """A ``MemoryData`` layer for an output that is a constant."""
    for value in graph.outputs:
        if value.name in context.blobs or value.const_value is None:
            continue
        shape = blob_shape(shape_of(value), f"the output '{value.name}'")
        array = value.const_value.numpy()
        context.bind(value, context.memory(value.name or "constant", array, shape))


def _describe(
    graph: ir.Graph,
    context: LoweringContext,
    layers: list[Layer],
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
) -> LoweredGraph:
    quantized: QuantizedInputs = context.quantized
    blobs: dict[str, str] = {}
    shapes: dict[str, Shape] = {}
    integers: dict[str, QuantParams] = {}
    handed_on = {context.made_by(n): p for n, p in context.plan.requantized.items()}
    present = {b for layer in layers for b in layer.outputs}
    for value in [*graph.inputs, *(v for node in graph for v in node.outputs)]:
        name = value.name or ""
        if name not in context.blobs:
            continue
        blob = outputs.get(name, context.blobs[name])
        if blob in shapes or blob not in present:
            # A Reshape of a vector shares its blob: it is named after what is read, or, if that
            # is an output, after the output.
            continue
        if value in handed_on:
            integers[blob] = handed_on[value]
            name = quantized.dequantized[value]
        blobs[name] = blob
        shapes[blob] = blob_shape(shape_of(value))
    for value in graph.outputs:
        shapes[outputs[value.name or ""]] = blob_shape(shape_of(value))
    return LoweredGraph(tuple(layers), inputs, outputs, blobs, shapes, integers)
