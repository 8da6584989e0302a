"""A model without its weights, for the C++ libraries that read serialized models.

What onnxsim and ONNX's shape inference do to a graph does not depend on the elements of a weight,
so those are neither copied nor serialized: a weight becomes an input of the graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

#: Float initializers of more elements than this are omitted: axes, shapes and scales are smaller.
LARGEST_KEPT = 16


def serialize_skeleton(model: ir.Model) -> tuple[bytes, dict[str, ir.TensorProtocol]]:
    """A model as bytes, its weights being inputs of the graph.

    A weight is a float initializer of more than `LARGEST_KEPT` elements that no node reads whose
    inputs are all constant (such a node can be folded, which needs the elements).

    Args:
        model: Left as it is.

    Returns:
        The serialized ``ModelProto``, and the tensors that were omitted, by name.
    """
    import onnx_ir as ir

    graph = model.graph
    initializers = list(graph.initializers.values())
    weights = _weights(graph)
    for value in weights:
        del graph.initializers[value.name or ""]
        graph.inputs.append(value)
    try:
        data = ir.to_proto(model).SerializeToString()
    finally:
        for value in weights:
            graph.inputs.remove(value)
        graph.initializers.clear()
        for value in initializers:
            graph.initializers.add(value)
    tensors = {v.name or "": v.const_value for v in weights}
    return data, {name: tensor for name, tensor in tensors.items() if tensor is not None}


def _weights(graph: ir.Graph) -> list[ir.Value]:
    import onnx_ir as ir

    foldable: set[ir.Value] = set()
    for node in graph:
        if all(v is None or v.is_initializer() or v in foldable for v in node.inputs):
            foldable.update(node.outputs)
    found = []
    for value in graph.initializers.values():
        tensor = value.const_value
        if tensor is None or tensor.size <= LARGEST_KEPT or not tensor.dtype.is_floating_point():
            continue
        if value.is_graph_output() or any(
            output in foldable for use in value.uses() for output in use.node.outputs
        ):
            continue
        value.shape = ir.Shape(tensor.shape.numpy())
        value.dtype = tensor.dtype
        found.append(value)
    return found
