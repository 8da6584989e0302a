"""What convolutions and linear layers read as integers, from a quantized stage.

The stage has this one form (a policy with ``inputs_only``): ``QuantizeLinear`` and
``DequantizeLinear`` stand between a value and the Conv or Gemm that reads it, and a
``DequantizeLinear`` before its weights; all else is float. ncnn quantizes symmetrically,
``integer = round(real * scale)`` in -127..127: its scale is the reciprocal of ONNX's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from deploykit.errors import ContractError
from deploykit.graph.ops import LINEAR_OPS
from deploykit.graph.read_qdq import is_dequantize, is_quantize, read_params
from deploykit.graph.reading import constant_array
from deploykit.tensors import Array, FloatArray, QuantParams

if TYPE_CHECKING:
    import onnx_ir as ir

#: Convolution, ConvolutionDepthWise and InnerProduct have integer kernels, Deconvolution has none.
QUANTIZED_OPS = LINEAR_OPS - {"ConvTranspose"}


@dataclass(frozen=True)
class QuantizedLayer:
    """A Conv or Gemm that computes in integers.

    Attributes:
        source: The float value before its QuantizeLinear.
        data: Parameters of its input: one scale, zero point 0.
        weights: int8, in ONNX's layout.
        weight_params: One scale an output channel, zero points 0.
    """

    source: ir.Value
    data: QuantParams
    weights: Array
    weight_params: QuantParams

    @property
    def channel_scales(self) -> FloatArray:
        """ONNX's scale of each output channel."""
        scales = np.asarray(self.weight_params.scale, np.float32)
        return np.broadcast_to(scales, (len(self.weights),)).copy()


@dataclass(frozen=True)
class QuantizedInputs:
    """What of a stage is integers.

    Attributes:
        layers: Conv or Gemm → what it reads.
        dequantized: Value → name of the value of the stage that holds it behind a QDQ pair.
        nodes: The QDQ nodes, which need no layer.
    """

    layers: Mapping[ir.Node, QuantizedLayer] = field(default_factory=dict)
    dequantized: Mapping[ir.Value, str] = field(default_factory=dict)
    nodes: frozenset[ir.Node] = frozenset()


def read_quantized_inputs(graph: ir.Graph) -> QuantizedInputs:
    """Read a stage.

    Raises:
        ContractError: it is quantized otherwise than the module's docstring says.
    """
    layers: dict[ir.Node, QuantizedLayer] = {}
    dequantized: dict[ir.Value, str] = {}
    nodes = {node for node in graph if is_quantize(node) or is_dequantize(node)}
    for node in graph:
        if node in nodes:
            continue
        reads = [v for v in node.inputs if v is not None and v.producer() in nodes]
        if not reads:
            continue
        if node.op_type not in QUANTIZED_OPS or node.domain or reads != list(node.inputs[:2]):
            raise _other_form(node)
        layers[node] = _read_layer(node)
        dequantized[layers[node].source] = node.inputs[0].name or ""  # type: ignore[union-attr]
    if any(output.producer() in nodes for output in graph.outputs):
        raise ContractError("an output of the model is quantized", expected=_FORM)
    return QuantizedInputs(layers, dequantized, frozenset(nodes))


_FORM = "a stage in which only what a Conv or Gemm reads is quantized, symmetrically"


def _other_form(node: ir.Node) -> ContractError:
    return ContractError(
        f"{node.op_type} '{node.name}' is quantized in a way that ncnn does not have",
        expected=_FORM,
        advice="quantize with this target's own policy",
    )


def _read_layer(node: ir.Node) -> QuantizedLayer:
    dequantize, weights = (v.producer() for v in node.inputs[:2] if v is not None)
    assert dequantize is not None
    assert weights is not None
    integers = dequantize.inputs[0]
    quantize = integers.producer() if integers is not None else None
    source = quantize.inputs[0] if quantize is not None else None
    held = constant_array(weights.inputs[0])
    if quantize is None or source is None or not is_quantize(quantize) or held is None:
        raise _other_form(node)
    data, weight_params = read_params(dequantize), read_params(weights)
    symmetric = all(not any(p.zero_point) and p.dtype == "int8" for p in (data, weight_params))
    if not symmetric or data.per_channel or weight_params.axis not in (None, 0):
        raise _other_form(node)
    return QuantizedLayer(source, data, held, weight_params)
