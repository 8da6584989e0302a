"""The steps of `deploykit.graph.qdq.fold_qdq`; the result's form is described there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from deploykit.errors import UnsupportedModelError
from deploykit.graph.ops import CLAMPS
from deploykit.graph.provenance import copy_provenance
from deploykit.graph.read_qdq import (
    DEQUANTIZE,
    QUANTIZE,
    bias_index,
    carries_activation,
    data_inputs,
    is_dequantize,
    is_quantize,
    is_structural,
    read_params,
    runs_in_integers,
)
from deploykit.graph.reading import constant_array, is_constant
from deploykit.tensors import Array, QuantParams

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass
class QdqFolding:
    """The state of one folding; keyed by values, as names change on the way.

    Attributes:
        model: The model, changed in place.
        params: Value → parameters.
        integers: Initializer → its integers.
        held_by: Value → name of the value of the given model that holds the same reals.
    """

    model: ir.Model
    params: dict[ir.Value, QuantParams] = field(default_factory=dict)
    integers: dict[ir.Value, Array] = field(default_factory=dict)
    held_by: dict[ir.Value, str] = field(default_factory=dict)
    _carried: set[ir.Value] = field(default_factory=set)
    _names: set[str] = field(default_factory=set)

    def run(self) -> None:
        """All steps, in order."""
        self._remove_unused()
        for name, value in self.alive_values().items():
            self._names.add(name)
            if not is_constant(value):
                self.held_by[value] = name
        self._fold_constants()
        self._fold_pairs()
        self._fold_integer_inputs()
        self._merge_values()
        self._dequantize_for_float_nodes()
        self._set_biases()
        self._remove_unused()

    def alive_values(self) -> dict[str, ir.Value]:
        """Every value of the graph by name, in the graph's order."""
        graph = self.model.graph
        values = [*graph.inputs, *graph.initializers.values()]
        for node in graph:
            values.extend(node.outputs)
        return {v.name: v for v in values if v.name}

    def _fold_constants(self) -> None:
        """DQ(constant integers) and DQ(Q(constant floats)) become initializers with integers."""
        for node in list(self.model.graph):
            source = node.inputs[0] if is_dequantize(node) else None
            if source is None:
                continue
            params = read_params(node)
            data = constant_array(source)
            producer = source.producer()
            if data is None and producer is not None and is_quantize(producer):
                floats = constant_array(producer.inputs[0])
                if floats is None:
                    continue
                _check_same(read_params(producer), params, node)
                source, data = producer.inputs[0], params.quantize(floats)
            if data is None or source is None:
                continue
            # The names of what goes are free.
            self._names.discard(node.outputs[0].name or "")
            name = source.name or "constant"
            if name in self.model.graph.initializers and len(source.uses()) == 1:
                del self.model.graph.initializers[name]
                self._names.discard(name)
            name = name.removesuffix("_quantized")
            self._replace(node, self._add_constant(name, data, params))

    def _fold_pairs(self) -> None:
        """Each Q with all of its DQs becomes a node ``QuantizeLinear`` from float to float.

        A graph output among the DQs, or the integers if they are a graph output themselves, gives
        the new value its name; each further graph output gets a separate node.
        """
        for node in list(self.model.graph):
            if not is_quantize(node):
                continue
            params, integers = read_params(node), node.outputs[0]
            readers = [use.node for use in integers.uses()]
            for reader in readers:
                _check_dequantize(reader, integers)
                _check_same(params, read_params(reader), reader)
            reals = [reader.outputs[0] for reader in readers]
            final = [v for v in (*reals, integers) if v.is_graph_output()]
            stand_ins = []
            for value in final or [v for v in reals if v.uses()][:1]:
                stand_ins.append(self._add_quantize(node, value, params))
                self._swap_output(value, stand_ins[-1])
                if value is not integers:
                    self.held_by[stand_ins[-1]] = value.name or ""
            for value in reals:
                if value.uses():
                    value.replace_all_uses_with(stand_ins[0])
            self.model.graph.remove(readers, safe=True)
            self.model.graph.remove(node, safe=True)

    def _fold_integer_inputs(self) -> None:
        """DQ(graph input): the input itself gets the parameters and becomes float-shaped."""
        import onnx_ir as ir

        for value in self.model.graph.inputs:
            readers = [use.node for use in value.uses()]
            if not readers or not all(is_dequantize(reader) for reader in readers):
                continue
            params = read_params(readers[0])
            self.params[value] = params
            self.held_by[value] = readers[0].outputs[0].name or ""
            value.dtype = ir.DataType.FLOAT
            for reader in readers:
                _check_same(params, read_params(reader), reader)
                self._replace(reader, value)
        for node in self.model.graph:
            if is_dequantize(node):
                _check_dequantize(node, node.inputs[0])
                raise UnsupportedModelError(
                    f"DequantizeLinear '{node.name}' reads integers that '{_producer(node)}' made",
                    expected="QDQ form: DequantizeLinear reads a QuantizeLinear or a constant",
                    advice="quantize with the QDQ format, or give the float model and --int8",
                )

    def _merge_values(self) -> None:
        """Give the value before a ``QuantizeLinear`` its parameters where integers are computed."""
        for value in self.model.graph.inputs:
            found = self._quantizes_behind([value])
            if found and not found[0].outputs[0].is_graph_output():
                self._merge(found[0])
        for node in list(self.model.graph):
            if node.graph is None:
                continue
            if is_quantize(node):
                self._drop_repeated(node)
            elif self._has_integer_inputs(node):
                found = self._quantizes_behind(node.outputs)
                if found is None and carries_activation(node.outputs[0]):
                    self._carried.add(node.outputs[0])
                for quantize in found or ():
                    self._merge(quantize)

    def _dequantize_for_float_nodes(self) -> None:
        """Put one ``DequantizeLinear`` behind each quantized value that a float node reads."""
        import onnx_ir as ir

        self._names = set(self.alive_values())  # those of nodes that are gone are free again
        floats: dict[ir.Value, ir.Value] = {}
        for node in list(self.model.graph):
            if is_quantize(node) or runs_in_integers(node, self.params.__contains__):
                continue
            for index, value in enumerate(node.inputs):
                if value is None or value not in self.params or is_constant(value):
                    continue
                if value not in floats:
                    held = self.held_by[value]
                    name = held if held != value.name else f"{value.name}_dequantized"
                    real = ir.Value(name=self._fresh(name), type=value.type, shape=value.shape)
                    dequantize = ir.Node("", DEQUANTIZE, [value], outputs=[real])
                    dequantize.name = real.name
                    self._insert_behind(value, dequantize)
                    floats[value], self.held_by[real] = real, held
                node.replace_input_with(index, floats[value])

    def _set_biases(self) -> None:
        """Store each bias of an integer node as int32 with scale input x weights."""
        for node in self.model.graph:
            index = bias_index(node)
            if index is None or len(node.inputs) <= index:
                continue
            data, weights, bias = node.inputs[0], node.inputs[1], node.inputs[index]
            reals = constant_array(bias)
            if bias is None or reals is None or data is None or weights is None:
                continue
            if weights not in self.integers or not runs_in_integers(node, self.params.__contains__):
                continue
            wanted = bias_scales(self.params[data], self.params[weights], reals.shape)
            if bias in self.integers and _is_close(self.params[bias], wanted):
                continue
            if (
                np.abs(reals.ravel() / np.array(wanted.scale, np.float64)).max(initial=0)
                > 2**31 - 1
            ):
                raise UnsupportedModelError(
                    f"the bias of {node.op_type} '{node.name}' does not fit into int32 at the "
                    "scales of its input and weights",
                    advice="quantize with larger weight scales, or give the float model and --int8",
                )
            name = (bias.name or "bias").removesuffix("_quantized")
            new = self._add_constant(name, wanted.quantize(reals), wanted)
            node.replace_input_with(index, new)

    def _remove_unused(self) -> None:
        graph = self.model.graph
        dead = [
            node
            for node in graph
            if (node.op_type == "Constant" or (is_quantize(node) and len(node.inputs) > 1))
            and not any(v.uses() or v.is_graph_output() for v in node.outputs)
        ]
        graph.remove(dead, safe=True)
        for name, value in list(graph.initializers.items()):
            if not value.uses() and not value.is_graph_output():
                del graph.initializers[name]

    # -- parts of the steps

    def _has_integer_inputs(self, node: ir.Node) -> bool:
        """Whether all that the node reads is integers, a parameter of the op, or a float bias."""
        data = data_inputs(node)
        activation = node.op_type in CLAMPS
        return (
            bool(data)
            and all(v in self.params or (activation and v in self._carried) for v in data)
            and all(
                value is None
                or not is_constant(value)
                or value in self.integers
                or is_structural(node, index)
                or index == bias_index(node)
                for index, value in enumerate(node.inputs)
            )
        )

    def _quantizes_behind(self, values: Iterable[ir.Value]) -> list[ir.Node] | None:
        """The one reader of each value that is read, if those all are ``QuantizeLinear``."""
        found: list[ir.Node] = []
        for value in values:
            readers = [use.node for use in value.uses()]
            if value.is_graph_output() or len(readers) > 1:
                return None
            if not all(is_quantize(reader) for reader in readers):
                return None
            found.extend(readers)
        return found

    def _drop_repeated(self, node: ir.Node) -> None:
        """Quantizing integers again with the parameters that they have changes nothing."""
        source, output = node.inputs[0], node.outputs[0]
        if source is None or output.is_graph_output():
            return
        if self.params.get(source) == self.params[output]:
            output.replace_all_uses_with(source)
            self.model.graph.remove(node, safe=True)

    def _merge(self, node: ir.Node) -> None:
        """Take out a ``QuantizeLinear``: its input holds its output's integers."""
        source, output = node.inputs[0], node.outputs[0]
        assert source is not None
        self.params[source] = self.params.pop(output)
        self.held_by.pop(source, None)
        if output in self.held_by:
            self.held_by[source] = self.held_by.pop(output)
        source.type = output.type
        source.shape = source.shape or output.shape
        name = output.name if output.is_graph_output() else source.name
        output.replace_all_uses_with(source, replace_graph_outputs=True)
        self.model.graph.remove(node, safe=True)
        source.name = name

    def _replace(self, node: ir.Node, value: ir.Value) -> None:
        node.outputs[0].replace_all_uses_with(value, replace_graph_outputs=True)
        self.model.graph.remove(node, safe=True)

    def _swap_output(self, old: ir.Value, new: ir.Value) -> None:
        outputs = self.model.graph.outputs
        for index, value in enumerate(outputs):
            if value is old:
                outputs[index] = new

    def _add_quantize(self, origin: ir.Node, stands_for: ir.Value, params: QuantParams) -> ir.Value:
        import onnx_ir as ir

        source = origin.inputs[0]
        assert source is not None
        value = ir.Value(
            name=stands_for.name,
            type=ir.TensorType(ir.DataType.FLOAT),
            shape=stands_for.shape or source.shape,
        )
        node = ir.Node("", QUANTIZE, [source], outputs=[value], name=origin.name)
        copy_provenance([origin], node)
        self.model.graph.insert_before(origin, node)
        self.params[value] = params
        return value

    def _add_constant(self, name: str, data: Array, params: QuantParams) -> ir.Value:
        import onnx_ir as ir

        name = self._fresh(name)

        def dequantize() -> ir.Tensor[Array]:
            return ir.Tensor(params.dequantize(data), name=name)

        shape = ir.Shape(data.shape)
        tensor = ir.LazyTensor(dequantize, ir.DataType.FLOAT, shape, name=name)
        value = ir.Value(
            name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=shape, const_value=tensor
        )
        self.model.graph.register_initializer(value)
        self.integers[value] = data
        self.params[value] = params
        return value

    def _insert_behind(self, value: ir.Value, node: ir.Node) -> None:
        producer = value.producer()
        if producer is not None:
            copy_provenance([producer], node)
            self.model.graph.insert_after(producer, node)
        else:
            self.model.graph.insert_before(self.model.graph[0], node)

    def _fresh(self, wanted: str) -> str:
        name, count = wanted, 0
        while name in self._names:
            count += 1
            name = f"{wanted}_{count}"
        self._names.add(name)
        return name


def bias_scales(data: QuantParams, weights: QuantParams, shape: tuple[int, ...]) -> QuantParams:
    """int32 parameters of a bias: scale of the input times scale of the weights, zero point 0.

    Source: the integer inference of Jacob et al. 2018 (arXiv:1712.05877), section 2.4.

    Args:
        data: Per-tensor parameters of the input.
        weights: Parameters of the weights; if per channel, their number divides the bias's size
            (in a grouped ConvTranspose every group has the same scales).
        shape: Shape of the bias; channels on its last axis.
    """
    product = np.float32(data.scale[0]) * np.asarray(weights.scale, dtype=np.float32)
    if weights.axis is None:
        return QuantParams((float(product[0]),), (0,), "int32")
    scales = np.tile(product, shape[-1] // product.size)
    return QuantParams(tuple(map(float, scales)), (0,) * scales.size, "int32", len(shape) - 1)


def _is_close(found: QuantParams, wanted: QuantParams) -> bool:
    return (
        found.dtype == wanted.dtype
        and not any(found.zero_point)
        and bool(np.allclose(found.scale, wanted.scale, rtol=1e-5, atol=0.0))
        and (found.axis is None) == (wanted.axis is None)
    )


def _check_same(params: QuantParams, other: QuantParams, node: ir.Node) -> None:
    if params != other:
        raise UnsupportedModelError(
            f"DequantizeLinear '{node.name}' reads with other parameters than the integers were "
            "written with",
            expected="the same scale, zero point, axis and dtype on both sides of a Q-DQ pair",
        )


def _check_dequantize(reader: ir.Node, integers: ir.Value | None) -> None:
    if not is_dequantize(reader):
        name = integers.name if integers is not None else ""
        raise UnsupportedModelError(
            f"{reader.op_type} '{reader.name}' computes with the integers of '{name}'",
            expected="QDQ form: each QuantizeLinear is read by DequantizeLinear only",
            advice="quantize with the QDQ format, or give the float model and --int8",
        )


def _producer(node: ir.Node) -> str:
    source = node.inputs[0]
    producer = source.producer() if source is not None else None
    return (producer.name or producer.op_type) if producer is not None else ""
