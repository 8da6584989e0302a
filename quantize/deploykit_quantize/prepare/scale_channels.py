"""Factors of channels, moved into the weights around them.

With ``f`` the factors of what a layer makes and ``g`` of what it reads:

    W'[o, i] = f[o] W[o, i] / g[i]          b'[o] = f[o] b[o]

Values keep their names; `Model.channel_factors` notes how they are held.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from deploykit.graph.editing import GraphEditor, set_input
from deploykit.graph.read_qdq import bias_index
from deploykit.graph.reading import constant_array, input_at, is_op
from deploykit.model import Model
from deploykit.tensors import Array
from deploykit_quantize.weighted_layer import WeightedLayer, weighted_layer

if TYPE_CHECKING:
    import onnx_ir as ir

    from deploykit_quantize.prepare.channel_classes import ChannelClasses


def scale_channels(model: Model, classes: ChannelClasses, factors: Array) -> Model:
    """The model with scaled channels; it computes what it did, and shares what did not change.

    Args:
        model: A fused stage, of whose graph the classes are.
        classes: Its channel classes.
        factors: Number of a channel → its factor, positive; alike within a class, 1 for those that
            are not scaled.
    """
    clone = model.graph.clone()
    by_name = {value.name or "": factors[classes.channels(value)] for value in classes.first}
    editor = GraphEditor(clone.graph)
    for node in list(clone.graph):
        layer = weighted_layer(node)
        if layer is None or not is_op(node, "Conv", "Gemm"):
            continue
        made, read = by_name.get(layer.name), by_name.get(layer.source)
        if made is None or read is None or ((made == 1).all() and (read == 1).all()):
            continue
        _scale_layer(editor, layer, made, read)
    held = {
        name: tuple(float(f) for f in values)
        for name, values in by_name.items()
        if (values != 1).any()
    }
    unused = [v for v in clone.graph.initializers.values() if not v.uses()]
    for value in unused:
        if not value.is_graph_output():
            del clone.graph.initializers[value.name or ""]
    return replace(model, graph=clone, channel_factors=held)


def _scale_layer(editor: GraphEditor, layer: WeightedLayer, made: Array, read: Array) -> None:
    node = layer.node
    rows = layer.rows(layer.weights.astype(np.float64))
    taps = layer.inputs_per_unit // (len(read) // layer.groups)
    columns = np.repeat(read.reshape(layer.groups, -1), taps, axis=1)
    scaled = rows * made.reshape(layer.groups, -1, 1) / columns[:, np.newaxis]
    _replace(editor, node, 1, layer.from_rows(scaled))
    index = bias_index(node)
    bias = None if index is None else constant_array(input_at(node, index))
    if index is not None and bias is not None:
        _replace(editor, node, index, (bias.astype(np.float64).reshape(-1) * made))


def _replace(editor: GraphEditor, node: ir.Node, index: int, array: Array) -> None:
    old = node.inputs[index]
    assert old is not None
    constant = editor.constant(f"{old.name}.equalized", array.astype(np.float32))
    set_input(node, index, constant)
