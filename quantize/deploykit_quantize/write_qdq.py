"""Adding QuantizeLinear and DequantizeLinear nodes to a graph."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from deploykit.graph.channel_order import channel_order, set_channel_order
from deploykit.graph.provenance import copy_provenance
from deploykit.graph.read_qdq import DEQUANTIZE, QUANTIZE
from deploykit.tensors import Array, QuantParams

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass
class QdqWriter:
    """Adds Q and DQ nodes and their constants to a graph, under names that are free."""

    graph: ir.Graph
    _names: set[str] = field(default_factory=set)
    _written: dict[tuple[ir.Value, QuantParams], ir.Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._names.update(v.name or "" for v in self.graph.inputs)
        self._names.update(self.graph.initializers)
        for node in self.graph:
            self._names.update(v.name or "" for v in node.outputs)

    def insert_pair(
        self, value: ir.Value, params: QuantParams, name: str, *, takes_output: bool = False
    ) -> ir.Value:
        """Q and DQ behind ``value``; returns what the DQ makes. Readers are not changed.

        Args:
            value: What is quantized.
            params: Per tensor.
            name: What the new values and constants are named after.
            takes_output: The DQ's output becomes the graph output that ``value`` is.
        """
        import onnx_ir as ir

        scale, zero = self._params(name, params)
        integers = self._value(f"{name}_quantized", params.dtype, value)
        real = self._value(f"{name}_dequantized", "float32", value)
        for one in (integers, real):
            set_channel_order(one, channel_order(value) or ())
        quantize = ir.Node("", QUANTIZE, [value, scale, zero], outputs=[integers])
        dequantize = ir.Node("", DEQUANTIZE, [integers, scale, zero], outputs=[real])
        producer = value.producer()
        for node in (quantize, dequantize):
            node.name = node.outputs[0].name
            if producer is not None:
                copy_provenance([producer], node)
        if producer is not None:
            self.graph.insert_after(producer, [quantize, dequantize])
        else:
            self.graph.insert_before(self.graph[0], [quantize, dequantize])
        if takes_output:
            for index, output in enumerate(self.graph.outputs):
                if output is value:
                    self.graph.outputs[index] = real
            value.name, real.name = self._fresh(f"{name}_float"), name
        return real

    def replace_params(self, nodes: Iterable[ir.Node], params: QuantParams, name: str) -> None:
        """Let Q and DQ nodes have other parameters, per tensor.

        Args:
            nodes: The Q and its DQs.
            params: Theirs from now on.
            name: What the new constants are named after.
        """
        constants = self._params(name, params)
        for node in nodes:
            node.attributes.pop("axis", None)
            for index, value in enumerate(constants, start=1):
                if index == len(node.inputs):
                    node.resize_inputs(index + 1)
                node.replace_input_with(index, value)

    def quantize_constant(
        self, node: ir.Node, index: int, params: QuantParams, integers: Array
    ) -> None:
        """Let ``node`` read input ``index`` through a DQ from integers.

        The same constant with the same parameters is written once, whoever reads it.
        """
        import onnx_ir as ir

        value = node.inputs[index]
        assert value is not None
        key = (value, params)
        if key not in self._written:
            name = value.name or "constant"
            stored = self._constant(f"{name}_quantized", integers)
            stem = (stored.name or "").replace("_quantized", "")
            real = self._value(f"{stem}_dequantized", "float32", value)
            scale, zero = self._params(stem, params)
            inputs = [stored, scale] if params.dtype == "int32" else [stored, scale, zero]
            attributes = [] if params.axis is None else [ir.AttrInt64("axis", params.axis)]
            dequantize = ir.Node("", DEQUANTIZE, inputs, attributes, outputs=[real], name=real.name)
            copy_provenance([node], dequantize)
            self.graph.insert_before(node, dequantize)
            self._written[key] = real
        node.replace_input_with(index, self._written[key])

    def remove_unused(self) -> None:
        """Drop the constants that nothing reads any more, and Constant nodes likewise."""
        dead = [n for n in self.graph if n.op_type == "Constant" and not n.outputs[0].uses()]
        self.graph.remove(dead, safe=True)
        for name, value in list(self.graph.initializers.items()):
            if not value.uses() and not value.is_graph_output():
                del self.graph.initializers[name]

    def _params(self, name: str, params: QuantParams) -> tuple[ir.Value, ir.Value | None]:
        scale = np.asarray(params.scale, dtype=np.float32)
        zero = np.asarray(params.zero_point, dtype=params.dtype)
        if params.axis is None:
            scale, zero = scale[0], zero[0]
        scales = self._constant(f"{name}_scale", np.asarray(scale))
        if params.dtype == "int32":  # must be 0, which leaving it out means
            return scales, None
        return scales, self._constant(f"{name}_zero_point", np.asarray(zero))

    def _constant(self, name: str, data: Array) -> ir.Value:
        import onnx_ir as ir

        name = self._fresh(name)
        tensor = ir.Tensor(data, name=name)
        value = ir.Value(
            name=name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor
        )
        self.graph.register_initializer(value)
        return value

    def _value(self, name: str, dtype: str, like: ir.Value) -> ir.Value:
        import onnx_ir as ir

        kind = ir.TensorType(ir.DataType.from_numpy(np.dtype(dtype)))
        return ir.Value(name=self._fresh(name), type=kind, shape=like.shape)

    def _fresh(self, wanted: str) -> str:
        name, count = wanted, 0
        while name in self._names:
            count += 1
            name = f"{wanted}_{count}"
        self._names.add(name)
        return name
