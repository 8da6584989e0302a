"""Editing a graph so that the names of its values survive.

A fused node gives the value that the pattern gave *last*, under that value's own name: so the
calibration table, the report and every artefact lead back to the source.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from deploykit.graph.provenance import copy_provenance
from deploykit.tensors import Array

if TYPE_CHECKING:
    import onnx_ir as ir

AttributeValue = int | float | str | Sequence[int] | Sequence[float]


def make_attribute(name: str, value: AttributeValue) -> ir.Attr:
    """An ONNX attribute of a Python value: int, float, str, or a sequence of ints or floats."""
    import onnx_ir as ir

    if isinstance(value, str):
        return ir.AttrString(name, value)
    if isinstance(value, int):
        return ir.AttrInt64(name, value)
    if isinstance(value, float):
        return ir.AttrFloat32(name, value)
    if all(isinstance(item, int) for item in value):
        return ir.AttrInt64s(name, [int(item) for item in value])
    return ir.AttrFloat32s(name, [float(item) for item in value])


def set_attributes(node: ir.Node, **values: AttributeValue) -> None:
    """Write attributes of a node, replacing those that it has."""
    for name, value in values.items():
        node.attributes[name] = make_attribute(name, value)


def drop_attributes(node: ir.Node, *names: str) -> None:
    """Remove attributes of a node, where it has them."""
    for name in names:
        node.attributes.pop(name, None)


def set_input(node: ir.Node, index: int, value: ir.Value | None) -> None:
    """Write one input of a node, which grows if it must."""
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)


def set_inputs(node: ir.Node, values: Sequence[ir.Value | None]) -> None:
    """Write all inputs of a node."""
    if len(node.inputs) != len(values):
        node.resize_inputs(len(values))
    for index, value in enumerate(values):
        if node.inputs[index] is not value:
            node.replace_input_with(index, value)


class GraphEditor:
    """Makes nodes and constants in one graph, under names that are not taken."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self._names: set[str] | None = None
        self._node_names: set[str] | None = None

    def _free_name(self, wish: str) -> str:
        if self._names is None:
            self._names = {v.name or "" for v in self.graph.inputs}
            self._names.update(self.graph.initializers)
            self._names.update(o.name or "" for node in self.graph for o in node.outputs)
        return _take(self._names, wish)

    def _free_node_name(self, wish: str) -> str:
        # ONNX Runtime refuses two nodes of one name.
        if self._node_names is None:
            self._node_names = {node.name or "" for node in self.graph}
        return _take(self._node_names, wish)

    def constant(self, wish: str, array: Array) -> ir.Value:
        """A new initializer; ``wish`` is its name if that is free, otherwise with a number."""
        import onnx_ir as ir

        name = self._free_name(wish)
        tensor = ir.Tensor(np.ascontiguousarray(array).reshape(array.shape), name=name)
        value = ir.Value(
            name=name,
            shape=ir.Shape(array.shape),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        self.graph.register_initializer(value)
        return value

    def ints(self, wish: str, numbers: Iterable[int]) -> ir.Value:
        """A new int64 vector among the initializers."""
        return self.constant(wish, np.array(list(numbers), dtype=np.int64))

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        shape: Sequence[int],
        *,
        like: ir.Node,
        before: ir.Node | None = None,
        name: str = "",
        attributes: Mapping[str, AttributeValue] | None = None,
        domain: str = "",
        dtype: ir.DataType | None = None,
    ) -> ir.Value:
        """A new node with one output.

        Args:
            op_type: Its op.
            inputs: Its inputs.
            shape: Shape of its output.
            like: Where its provenance, and its output's dtype, come from.
            before: The node before which it is inserted; ``like`` if not given.
            name: Wished name of its output; with a number if it is taken.
            attributes: Its attributes, as plain values.
            domain: Its domain.
            dtype: Of the output, where it is not that of ``like``'s first output.

        Returns:
            The output.
        """
        (output,) = self.node_with_outputs(
            op_type,
            inputs,
            [shape],
            like=like,
            before=before,
            name=name,
            attributes=attributes,
            domain=domain,
            dtype=dtype,
        )
        return output

    def node_with_outputs(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        shapes: Sequence[Sequence[int]],
        *,
        like: ir.Node,
        before: ir.Node | None = None,
        name: str = "",
        attributes: Mapping[str, AttributeValue] | None = None,
        domain: str = "",
        dtype: ir.DataType | None = None,
    ) -> tuple[ir.Value, ...]:
        """A new node with several outputs, one for each of ``shapes``; otherwise as `node`."""
        import onnx_ir as ir

        kind = dtype if dtype is not None else like.outputs[0].dtype
        wish = name or f"{like.outputs[0].name}.{op_type.lower()}"
        outputs = [
            ir.Value(
                name=self._free_name(wish),
                shape=ir.Shape(tuple(shape)),
                type=ir.TensorType(kind) if kind is not None else None,
            )
            for shape in shapes
        ]
        made = ir.Node(
            domain,
            op_type,
            inputs,
            [make_attribute(key, value) for key, value in (attributes or {}).items()],
            outputs=outputs,
            name=self._free_node_name(f"node_{outputs[0].name}"),
        )
        copy_provenance([like], made)
        self.graph.insert_before(before if before is not None else like, made)
        return tuple(outputs)

    def set_shape(self, value: ir.Value, shape: Sequence[int]) -> None:
        """Write the static shape of a value."""
        import onnx_ir as ir

        value.shape = ir.Shape(tuple(shape))

    def follow(
        self,
        node: ir.Node,
        op_type: str,
        others: Sequence[ir.Value | None] = (),
        *,
        shape: Sequence[int] | None = None,
        attributes: Mapping[str, AttributeValue] | None = None,
        output: int = 0,
    ) -> ir.Node:
        """Put a new node behind ``node``: it reads that node's output and takes over its name.

        Args:
            node: The node.
            op_type: The new node's op, of the default domain.
            others: The new node's inputs after the first.
            shape: The shape of what it gives; that of ``node``'s output if not given.
            attributes: Its attributes.
            output: Which of the node's outputs.

        Returns:
            The new node.
        """
        import onnx_ir as ir

        inner = node.outputs[output]
        outer = ir.Value(shape=inner.shape if shape is None else ir.Shape(shape), type=inner.type)
        name = inner.name or ""
        self.take_over(inner, outer)
        inner.name = self._free_name(f"{name}.{node.op_type.lower()}")
        made = ir.Node(
            "",
            op_type,
            [inner, *others],
            [make_attribute(key, value) for key, value in (attributes or {}).items()],
            outputs=[outer],
            name=self._free_node_name(f"node_{name}"),
        )
        copy_provenance([node], made)
        self.graph.insert_after(node, made)
        return made

    def take_over(self, old: ir.Value, new: ir.Value) -> None:
        """``new`` takes the readers, the name and the place among the graph's outputs of ``old``.

        ``old`` is left without readers, under a name that is free.
        """
        name = old.name
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        old.name = self._free_name(f"{name}.replaced")
        producer = new.producer()
        if producer is not None and producer.name == f"node_{new.name}":
            producer.name = self._free_node_name(f"node_{name}")
        new.name = name

    def bypass(self, node: ir.Node) -> str:
        """Remove a node whose (only used) output equals its first input.

        Returns:
            Empty if that was done, otherwise what stands in the way: the output is one of the
            graph's, and the input cannot take its name.
        """
        source, output = node.inputs[0], node.outputs[0]
        if source is None:
            return "it has no input"
        if output.is_graph_output():
            if source.is_graph_input() or source.is_initializer() or source.is_graph_output():
                return "both its input and its output have to keep their names"
            self.take_over(output, source)
        else:
            output.replace_all_uses_with(source)
        self.graph.remove(node, safe=True)
        return ""

    def remove_if_unread(self, *nodes: ir.Node) -> None:
        """Remove those of the nodes, in the order given, that nothing reads any more."""
        for node in nodes:
            if node.graph is None:
                continue
            if any(o.uses() or o.is_graph_output() for o in node.outputs):
                continue
            self.graph.remove(node, safe=True)


def _take(taken: set[str], wish: str) -> str:
    name, number = wish, 0
    while name in taken:
        number += 1
        name = f"{wish}.{number}"
    taken.add(name)
    return name
