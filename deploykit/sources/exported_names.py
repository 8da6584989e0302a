"""Names and metadata of a graph as torch's exporters leave it, made ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from deploykit.sources.torch_source import input_names, output_names

if TYPE_CHECKING:
    import onnx_ir as ir


def tidy_graph(model: ir.Model) -> None:
    """Names of inputs and outputs; no metadata, type or name that only the exporter reads."""
    import onnx_ir as ir

    graph = model.graph
    model.producer_name, model.producer_version = "deploykit", ""
    model.metadata_props.clear()
    graph.metadata_props.clear()
    for value in [*graph.inputs, *graph.initializers.values()]:
        value.metadata_props.clear()
    for node in graph.all_nodes():
        for value in node.outputs:
            value.metadata_props.clear()
    # An output that is also an input, or that stands twice, gets a separate node.
    taken: set[ir.Value] = set(graph.inputs) | set(graph.initializers.values())
    for index, value in enumerate(list(graph.outputs)):
        if value in taken:
            node = ir.Node("", "Identity", [value])
            node.outputs[0].shape, node.outputs[0].type = value.shape, value.type
            graph.append(node)
            graph.outputs[index] = node.outputs[0]
        taken.add(graph.outputs[index])
    _rename(graph, list(graph.inputs), input_names(len(graph.inputs)))
    _rename(graph, list(graph.outputs), output_names(len(graph.outputs)))
    for index, node in enumerate(graph.all_nodes()):
        first = node.outputs[0].name if node.outputs else ""
        node.name = first or f"node_{index}"


def _rename(graph: ir.Graph, values: Sequence[ir.Value], names: Sequence[str]) -> None:
    renamed = set(map(id, values))
    clashes = {
        value.name: value
        for node in graph.all_nodes()
        for value in node.outputs
        if id(value) not in renamed
    }
    for value in [*graph.inputs, *graph.initializers.values()]:
        if id(value) not in renamed:
            clashes.setdefault(value.name, value)
    for value, name in zip(values, names, strict=True):
        if name in clashes:
            clashes[name].name = f"{name}_inner"
        value.name = name
