"""Quantization parameters of values, folded out of QuantizeLinear and DequantizeLinear nodes.

A QDQ model says with pairs of nodes which values are integers. A target wants the graph of the
fused stage, and beside it the parameters of each value. `fold_qdq` turns the one into the other,
for the models that `deploykit_quantize` writes and for those of other quantizers.

What a node computes in follows from its values (`QuantizedGraph.runs_in_integers`):

1.  All data inputs and all outputs have parameters: the node runs in integers.
2.  An op that carries an activation (`ACTIVATION_CARRIERS`) whose one reader is a Relu or Clip
    that has parameters on its output: the two run in integers as one; the value between the two
    has no parameters.
3.  Everything else runs in float, and no data input of it has parameters: a node
    ``DequantizeLinear`` (one input, one output) stands before it. Its constants may be integers
    all the same (weight-only quantization).

Nodes ``QuantizeLinear`` (one input, one output; the parameters are those of the output) stand
where a float value becomes integers, and where integers go from one scale to another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from deploykit.graph.fold_qdq_nodes import QdqFolding
from deploykit.graph.read_qdq import is_dequantize, is_quantize, runs_in_integers
from deploykit.tensors import Array, QuantParams

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class QuantizedGraph:
    """A quantized stage without its Q and DQ nodes; see the module's docstring.

    Attributes:
        model: A clone, float-shaped: values are named as in the fused stage; constants that are
            integers are float32 initializers computed when they are read (they cost no memory
            until then). It is for reading, not for ONNX Runtime.
        params: Value name → parameters, for data and for constants.
        integers: Initializer name → its integers, in ONNX's own layout.
        stage_values: Value name → name of the value of the quantized stage that holds the same
            reals (the output of a DequantizeLinear, or the value itself if it is float).
    """

    model: ir.Model
    params: Mapping[str, QuantParams]
    integers: Mapping[str, Array]
    stage_values: Mapping[str, str]

    def runs_in_integers(self, node: ir.Node) -> bool:
        """Whether a node computes in integers: rules 1 and 2 of the module's docstring."""
        return runs_in_integers(node, lambda value: value.name in self.params)


def has_qdq(model: ir.Model) -> bool:
    """Whether a graph holds QuantizeLinear or DequantizeLinear nodes."""
    return any(is_quantize(node) or is_dequantize(node) for node in model.graph)


def fold_qdq(model: ir.Model) -> QuantizedGraph:
    """Take the Q and DQ nodes out of a clone of ``model``.

    Every bias of a Conv, ConvTranspose or Gemm that runs in integers comes out as int32 with the
    scale of its input times that of its weights and zero point 0, however the model stored it.

    Raises:
        UnsupportedModelError: a computed scale, blocked quantization, a dtype that no target has,
            integers that are computed with between Q and DQ, a bias that int32 cannot hold.
    """
    folding = QdqFolding(model.clone())
    folding.run()
    alive = folding.alive_values().items()
    return QuantizedGraph(
        model=folding.model,
        params={name: folding.params[v] for name, v in alive if v in folding.params},
        integers={name: folding.integers[v] for name, v in alive if v in folding.integers},
        stage_values={name: folding.held_by[v] for name, v in alive if v in folding.held_by},
    )


def with_signed_integers(graph: QuantizedGraph) -> QuantizedGraph:
    """The same graph with every uint8 moved by 128 to int8: the same reals, bit for bit."""
    params = {
        name: replace(p, dtype="int8", zero_point=tuple(z - 128 for z in p.zero_point))
        if p.dtype == "uint8"
        else p
        for name, p in graph.params.items()
    }
    integers = {
        name: (data.astype(np.int16) - 128).astype(np.int8) if data.dtype == np.uint8 else data
        for name, data in graph.integers.items()
    }
    return replace(graph, params=params, integers=integers)
