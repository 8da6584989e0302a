"""The algebra that folding shares: an affine map behind a linear op, put into its weights.

For ``y = L(x) + b`` with output channels o, and ``z[o] = scale[o] y[o] + shift[o]``:

    W'[o, ...] = scale[o] W[o, ...]        b'[o] = scale[o] b[o] + shift[o]

The output channel is axis 0 of the weights of Conv and of Gemm (``transB`` 1). ConvTranspose with G
groups has W of shape (C_in, C_out / G, kH, kW): the rows of group g make the channels
``g C_out / G ... (g + 1) C_out / G - 1``. Zero padding lies before L, so it does not matter.
Computed in float64, stored in the dtype of the weights. A weight that two nodes share is not
modified: each fold makes constants of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deploykit.graph.editing import GraphEditor, set_inputs
from deploykit.graph.reading import constant_array, input_at, known_shape, read_int
from deploykit.tensors import Array

if TYPE_CHECKING:
    import onnx_ir as ir


def why_not_foldable(node: ir.Node) -> str:
    """What stands in the way of writing into a linear node's weights; empty if nothing does."""
    if constant_array(input_at(node, 1)) is None:
        return f"the weights of {node.op_type} are not constant"
    bias = input_at(node, 2)
    if bias is not None and constant_array(bias) is None:
        return f"the bias of {node.op_type} is not constant"
    return ""


def scale_outputs(node: ir.Node, scale: Array, shift: Array, editor: GraphEditor) -> None:
    """Write ``scale * output + shift`` into the weights and bias of a linear node.

    Args:
        node: Conv, ConvTranspose, or Gemm in canonical form; `why_not_foldable` gave nothing.
        scale: float64, one an output channel.
        shift: float64, one an output channel.
        editor: Of the node's graph.
    """
    weights, bias = constant_array(node.inputs[1]), constant_array(input_at(node, 2))
    if weights is None:
        raise ValueError(f"the weights of {node.name} are not constant")
    name = node.outputs[0].name
    wide = weights.astype(np.float64)
    if node.op_type == "ConvTranspose":
        groups = read_int(node, "group", 1)
        # (G, C_in / G, C_out / G, kH, kW), times (G, 1, C_out / G, 1, 1)
        split = wide.reshape(groups, -1, *wide.shape[1:])
        factor = scale.reshape(groups, 1, wide.shape[1], *([1] * (wide.ndim - 2)))
        scaled = (split * factor).reshape(wide.shape)
    else:
        scaled = wide * scale.reshape(-1, *([1] * (wide.ndim - 1)))
    old = np.zeros(len(scale)) if bias is None else bias.astype(np.float64).reshape(-1)
    new_weights = editor.constant(f"{name}.weight", scaled.astype(weights.dtype))
    new_bias = editor.constant(f"{name}.bias", (old * scale + shift).astype(weights.dtype))
    set_inputs(node, [node.inputs[0], new_weights, new_bias])


def output_channels(node: ir.Node) -> int:
    """Number of output channels of a linear node."""
    return known_shape(node.outputs[0])[1]
