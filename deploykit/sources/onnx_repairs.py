"""What files in the field get wrong and ONNX Runtime takes all the same, put right.

1. Dimensions of 0 and below, which some exporters write for "unknown", are unknown.
2. Initializers that are listed as inputs too (files before IR version 4) leave the inputs.
3. Nodes in any order are sorted; a graph with a cycle is refused.
4. An output that is an input or an initializer, or is named twice, gets a separate Identity,
   so that every output is the result of one node.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from deploykit.errors import SourceError

if TYPE_CHECKING:
    import onnx


def repair_graph(graph: onnx.GraphProto, origin: str) -> None:
    """Put right what the module's docstring lists, in place.

    Raises:
        SourceError: nodes that read each other's results in a circle.
    """
    for value in (*graph.input, *graph.output, *graph.value_info):
        _forget_impossible_dims(value)
    initializers = {t.name for t in graph.initializer}
    inputs = [v for v in graph.input if v.name not in initializers]
    if len(inputs) != len(graph.input):
        del graph.input[:]
        graph.input.extend(inputs)
    _sort_nodes(graph, origin)
    _separate_outputs(graph)


def _forget_impossible_dims(value: onnx.ValueInfoProto) -> None:
    if not value.type.HasField("tensor_type"):
        return
    for dim in value.type.tensor_type.shape.dim:
        if dim.HasField("dim_value") and dim.dim_value <= 0:
            dim.Clear()


def _read_names(node: onnx.NodeProto) -> Iterator[str]:
    """Values that a node reads, those that its inner graphs take from outside included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        inner = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
        for graph in inner:
            own = {v.name for v in graph.input} | {t.name for t in graph.initializer}
            own |= {name for n in graph.node for name in n.output}
            yield from (n for one in graph.node for n in _read_names(one) if n not in own)
            yield from (v.name for v in graph.output if v.name not in own)


def _sort_nodes(graph: onnx.GraphProto, origin: str) -> None:
    """Each node behind those whose results it reads; as they stand wherever that is free."""
    nodes = list(graph.node)
    maker = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    needs = [{maker[name] for name in _read_names(node) if name in maker} for node in nodes]
    if all(before < index for index, found in enumerate(needs) for before in found):
        return
    order: list[int] = []
    done: set[int] = set()
    waiting = list(range(len(nodes)))
    while waiting:
        ready = []
        for index in waiting:
            if needs[index] <= done:
                ready.append(index)
                done.add(index)
        if not ready:
            names = ", ".join(nodes[i].name or nodes[i].op_type for i in waiting[:4])
            raise SourceError(
                f"{origin} is a damaged ONNX file: nodes read each other's results in a circle "
                f"({names})",
                advice="export it again",
            )
        order += ready
        waiting = [index for index in waiting if index not in done]
    copies = [nodes[index] for index in order]
    fresh = type(graph)()
    fresh.node.extend(copies)
    del graph.node[:]
    graph.node.extend(fresh.node)


def _separate_outputs(graph: onnx.GraphProto) -> None:
    made = {name for node in graph.node for name in node.output}
    given = {v.name for v in graph.input} | {t.name for t in graph.initializer}
    taken = made | given
    seen: set[str] = set()
    for value in graph.output:
        name = value.name
        if name not in seen and name not in given:
            seen.add(name)
            continue
        if name not in taken:
            continue  # nothing makes it: that is refused elsewhere
        number = 1
        while f"{name}.{number}" in taken:
            number += 1
        value.name = f"{name}.{number}"
        taken.add(value.name)
        seen.add(value.name)
        graph.node.add(op_type="Identity", input=[name], output=[value.name], name=value.name)
