"""What a graph costs, layer by layer and in total."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from deploykit.cost.find_absorbed import find_absorbed
from deploykit.cost.formulas import (
    NodeCount,
    count_node,
    data_inputs,
    elements,
    parameters_of,
    weight_inputs,
)
from deploykit.cost.layer import ElementSizes, LayerCost, StageCost
from deploykit.graph.provenance import module_path
from deploykit.graph.reading import is_constant, is_op, known_shape, read_int, read_ints

if TYPE_CHECKING:
    import onnx_ir as ir


def count_graph(model: ir.Model, stage: str, sizes: ElementSizes, *, absorb: bool) -> StageCost:
    """Count a graph with static shapes.

    Args:
        model: The graph; it is left as it is.
        stage: What to call it.
        sizes: Bytes an element.
        absorb: Whether clamps belong to the layer before them (`find_absorbed`).
    """
    graph = model.graph
    absorbed = find_absorbed(graph) if absorb else {}
    layers = [_count_layer(node, clamp, sizes) for node, clamp in pair_nodes(graph, absorbed)]
    uncounted = Counter(layer.op_type for layer in layers if not layer.counted)
    trained = {v.name: elements(v) for node in graph for v in parameters_of(node)}
    constants = {v.name: _constant_bytes(v, sizes) for node in graph for v in weight_inputs(node)}
    return StageCost(
        stage=stage,
        layers=tuple(layers),
        parameters=sum(trained.values()),
        weight_bytes=sum(constants.values()),
        peak_activation_bytes=_peak_bytes(graph, absorbed, sizes),
        uncounted=dict(sorted(uncounted.items())),
    )


def pair_nodes(
    graph: ir.Graph, absorbed: Mapping[ir.Node, ir.Node]
) -> list[tuple[ir.Node, ir.Node | None]]:
    """A node and the clamp that it absorbs, for every layer, in the order of `StageCost.layers`."""
    inside = set(absorbed.values())
    return [(node, absorbed.get(node)) for node in graph if node not in inside]


def op_name(node: ir.Node) -> str:
    """Op type, with its domain if that is not ONNX's own."""
    return f"{node.domain}::{node.op_type}" if node.domain else node.op_type


def _count_layer(node: ir.Node, clamp: ir.Node | None, sizes: ElementSizes) -> LayerCost:
    last = node if clamp is None else clamp
    first_count = count_node(node)
    clamp_count = None if clamp is None else count_node(clamp)
    count = first_count or NodeCount()
    parameters = sum(elements(value) for value in parameters_of(node))
    inputs, outputs = data_inputs(node), _used_outputs(last)
    written = sum(elements(value) for value in outputs)
    read = sum(elements(value) for value in inputs)
    if count.reads_outputs_only:
        read = min(read, written)
    moved = first_count is not None and not count.is_view
    weights = sum(_constant_bytes(value, sizes) for value in weight_inputs(node))
    return LayerCost(
        name=last.outputs[0].name or "",
        node=node.name or "",
        op_type=" + ".join(op_name(n) for n in (node, clamp) if n is not None),
        kind=describe_kind(node),
        module=module_path(node),
        input_shapes=tuple(known_shape(value) for value in inputs),
        output_shapes=tuple(known_shape(value) for value in outputs),
        counted=first_count is not None,
        is_view=count.is_view,
        parameters=parameters,
        mult_adds=count.mult_adds,
        flops=count.flops + (clamp_count.flops if clamp_count is not None else 0),
        input_bytes=sizes.activation * read if moved else 0,
        weight_bytes=weights if moved else 0,
        output_bytes=sizes.activation * written if moved else 0,
        activation_bytes=0 if count.is_view else sizes.activation * written,
    )


def _used_outputs(node: ir.Node) -> list[ir.Value]:
    # An output that is omitted has no name; a BatchNormalization may have such ones.
    return [value for value in node.outputs if value.name and value.shape is not None]


def _constant_bytes(value: ir.Value, sizes: ElementSizes) -> int:
    return elements(value) * (sizes.weight if len(known_shape(value)) > 1 else sizes.bias)


def describe_kind(node: ir.Node) -> str:
    """See `LayerCost.kind`."""
    if is_op(node, "Gemm"):
        return "linear"
    if not is_op(node, "Conv", "ConvTranspose"):
        return node.op_type.lower()
    shape = known_shape(node.inputs[1])
    window = "x".join(str(k) for k in shape[2:])
    group = read_int(node, "group", 1)
    strides = set(read_ints(node, "strides", (1, 1)))
    stride = "" if strides == {1} else f" /{'x'.join(str(s) for s in sorted(strides))}"
    if is_op(node, "ConvTranspose"):
        return f"transposed {window}{stride}"
    if group == 1:
        return f"pointwise{stride}" if set(shape[2:]) == {1} else f"conv {window}{stride}"
    if is_depthwise(node):
        return f"depthwise {window}{stride}"
    return f"grouped {window} g={group}{stride}"


def is_depthwise(node: ir.Node) -> bool:
    """Whether a node is a convolution with one input channel a group, and more than one group."""
    return (
        is_op(node, "Conv")
        and read_int(node, "group", 1) > 1
        and known_shape(node.inputs[1])[1] == 1
    )


def _peak_bytes(graph: ir.Graph, absorbed: Mapping[ir.Node, ir.Node], sizes: ElementSizes) -> int:
    """The most bytes of computed values that are alive at once.

    A value lives from the node that makes it to its last reader; inputs from the start, outputs
    to the end. A view shares the bytes of its input, an absorbed clamp those of its producer.
    """
    root: dict[ir.Value, ir.Value] = {}
    clamps = set(absorbed.values())
    last_use: dict[ir.Value, int] = {}
    nodes = list(graph)
    for index, node in enumerate(nodes):
        for value in data_inputs(node):
            last_use[root.get(value, value)] = index
        count = count_node(node)
        if node in clamps or (count is not None and count.is_view):
            source = node.inputs[0]
            if source is not None and not is_constant(source):
                root[node.outputs[0]] = root.get(source, source)
                last_use[root.get(source, source)] = index
    for value in graph.outputs:
        last_use[root.get(value, value)] = len(nodes)
    alive = {value: elements(value) for value in graph.inputs}
    peak = sum(alive.values())
    for index, node in enumerate(nodes):
        for value in _used_outputs(node):
            if value not in root:
                alive[value] = elements(value)
        peak = max(peak, sum(alive.values()))
        alive = {v: size for v, size in alive.items() if last_use.get(v, -1) > index}
    return peak * sizes.activation
