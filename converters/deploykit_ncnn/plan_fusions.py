"""Which activations a layer computes along, and which layers hand on integers.

1.  Convolution, ConvolutionDepthWise, Deconvolution, DeconvolutionDepthWise and InnerProduct end
    with a separate activation. A Relu, LeakyRelu, Clip, Sigmoid, HardSigmoid-gated x
    (HardSwish) that is the one reader of such a layer's result becomes part of it.
2.  *Requantization*: a convolution in integers, whose result only convolutions in integers read,
    hands on integers in the scale that those read it in. The file says so by an
    ``int8_scale_term`` above 100. What is computed is the same; it saves the float blob.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deploykit.graph.op_facts import NO_BOUND, Interval, clamp_of
from deploykit.graph.ops import LINEAR_OPS
from deploykit.graph.read_qdq import is_quantize
from deploykit.graph.reading import is_op, only_reader, read_float
from deploykit.tensors import QuantParams
from deploykit_ncnn.layer_graph import Param
from deploykit_ncnn.quantized_inputs import QuantizedInputs

if TYPE_CHECKING:
    import onnx_ir as ir

Activation = tuple[int, tuple[float, ...]]


@dataclass(frozen=True)
class FusionPlan:
    """What is fused.

    Attributes:
        activations: Node → the activation node that becomes part of its layer.
        requantized: Node → parameters of the integers that its layer hands on.
    """

    activations: Mapping[ir.Node, ir.Node] = field(default_factory=dict)
    requantized: Mapping[ir.Node, QuantParams] = field(default_factory=dict)


def plan_fusions(
    graph: ir.Graph,
    quantized: QuantizedInputs,
    *,
    requantize: bool,
    reads_integers: Callable[[ir.Node], bool],
) -> FusionPlan:
    """Find all of both.

    Args:
        graph: The stage.
        quantized: What of it is integers.
        requantize: Whether case 2 is wanted.
        reads_integers: Whether the layer of a Conv in integers can read what is integers already.
    """
    activations: dict[ir.Node, ir.Node] = {}
    requantized: dict[ir.Node, QuantParams] = {}
    for node in graph:
        if node.domain or node.op_type not in LINEAR_OPS:
            continue
        reader = only_reader(node.outputs[0])
        if reader is not None and fused_activation(reader) is not None:
            activations[node] = reader
        if requantize and is_op(node, "Conv") and node in quantized.layers:
            value = activations.get(node, node).outputs[0]
            params = _read_as_integers(value, quantized, reads_integers)
            if params is not None:
                requantized[node] = params
    return FusionPlan(activations, requantized)


def fused_activation(node: ir.Node) -> Activation | None:
    """Type and parameters of the activation at a layer's end; None where there is no such type."""
    if node.domain:
        return None
    if node.op_type == "Relu":
        return 1, ()
    if node.op_type == "LeakyRelu":
        return 2, (read_float(node, "alpha", 0.01),)
    if node.op_type == "Clip":
        bounds = clip_bounds(node)
        return None if bounds is None else (3, bounds)
    if node.op_type == "Sigmoid":
        return 4, ()
    if node.op_type == "HardSwish":
        return 6, (1 / 6, 0.5)
    return None


def clip_bounds(node: ir.Node) -> Interval | None:
    """What a Clip clamps to, as ncnn writes it: an open end is `NO_BOUND`; None if computed."""
    bounds = clamp_of(node)
    if bounds is None:
        return None
    low, high = (max(-NO_BOUND, min(NO_BOUND, bound)) for bound in bounds)
    return low, high


def activation_params(activation: Activation | None) -> dict[int, Param]:
    """Parameters 9 and 10 of a layer."""
    if activation is None:
        return {}
    kind, numbers = activation
    return {9: kind, **({10: numbers} if numbers else {})}


def _read_as_integers(
    value: ir.Value, quantized: QuantizedInputs, reads_integers: Callable[[ir.Node], bool]
) -> QuantParams | None:
    """How all readers of a value read it, if those are convolutions in integers alone."""
    if value.is_graph_output() or value not in quantized.dequantized:
        return None
    quantizers = [use.node for use in value.uses()]
    if len(quantizers) != 1 or not is_quantize(quantizers[0]):
        return None
    readers = [
        use.node
        for dequantize in quantizers[0].outputs[0].uses()
        for use in dequantize.node.outputs[0].uses()
    ]
    if not all(is_op(r, "Conv") and r in quantized.layers and reads_integers(r) for r in readers):
        return None
    return quantized.layers[readers[0]].data
