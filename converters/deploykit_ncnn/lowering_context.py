"""What a lowering function works with: the layers so far, blobs of values, constants, names.

A function reads its operands by `LoweringContext.read`, which gives names of blobs, and puts layers
behind them by `LoweringContext.emit` and `LoweringContext.result`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from deploykit.graph.node_fields import needed_value, shape_of
from deploykit.graph.provenance import module_path
from deploykit.graph.reading import constant_array
from deploykit.lowering import LoweringTable
from deploykit.tensors import Array
from deploykit_ncnn.blob_axes import Shape, blob_axis, blob_shape, length_params
from deploykit_ncnn.layer_graph import Layer, Param, Weight, unique_name
from deploykit_ncnn.plan_fusions import FusionPlan
from deploykit_ncnn.quantized_inputs import QuantizedInputs

if TYPE_CHECKING:
    import onnx_ir as ir

Lower = Callable[["ir.Node", "LoweringContext"], None]
TABLE: LoweringTable[Lower] = LoweringTable("ncnn")


@dataclass
class LoweringContext:
    """One model while it is built.

    Attributes:
        plan: Which activations and requantizations are part of the layer before them.
        quantized: What convolutions and linear layers read as integers.
        layers: The layers so far.
        blobs: Value name → name of the blob that holds it.
        vectors: The values of shape (1, C, 1, 1) whose blob is (C,).
        fp16_workaround: Whether layers are kept from a wrong kernel
            (`deploykit_ncnn.fp16_workaround`).
    """

    plan: FusionPlan
    quantized: QuantizedInputs
    vectors: frozenset[ir.Value] = frozenset()
    fp16_workaround: bool = True
    layers: list[Layer] = field(default_factory=list)
    blobs: dict[str, str] = field(default_factory=dict)
    _maps: dict[str, str] = field(default_factory=dict)
    _blob_names: set[str] = field(default_factory=set)
    _layer_names: set[str] = field(default_factory=set)
    _constants: dict[tuple[str, Shape], str] = field(default_factory=dict)

    # -- operands

    def read(self, node: ir.Node, index: int = 0) -> str:
        """The blob of an operand; a constant one becomes a ``MemoryData`` layer."""
        value = needed_value(node, index)
        array = constant_array(value)
        if array is not None:
            shape = blob_shape(shape_of(value), f"the constant '{value.name}'")
            return self.memory(value.name or "constant", array, shape)
        return self.read_value(value)

    def read_value(self, value: ir.Value, *, as_vector: bool = False) -> str:
        """The blob of a computed value, in its own shape.

        Args:
            value: The value.
            as_vector: Whether one that is held as a vector is read as such.
        """
        blob = self.blobs[value.name or ""]
        if value not in self.vectors or as_vector:
            return blob
        if blob not in self._maps:
            shape = blob_shape(shape_of(value))
            wanted = f"{blob}_map"
            (made,) = self.emit("Reshape", wanted, [blob], [wanted], length_params(shape))
            self._maps[blob] = made
        return self._maps[blob]

    def memory(self, name: str, array: Array, shape: Shape) -> str:
        """The blob of a constant."""
        key = (name, shape)
        if key not in self._constants:
            data = np.ascontiguousarray(array, dtype=np.float32)
            (blob,) = self.emit(
                "MemoryData", name, (), [name], length_params(shape), [Weight(data)]
            )
            self._constants[key] = blob
        return self._constants[key]

    def shape(self, node: ir.Node, index: int = 0) -> Shape:
        """Shape of the blob of an input."""
        value = needed_value(node, index)
        return blob_shape(shape_of(value), f"'{value.name}'")

    def output_shape(self, node: ir.Node, index: int = 0) -> Shape:
        """Shape of the blob of an output."""
        value = node.outputs[index]
        return blob_shape(shape_of(value), f"its result '{value.name}'")

    def axis(self, node: ir.Node, axis: int) -> int:
        """An axis of the first input as the blob counts it."""
        return blob_axis(axis, len(shape_of(needed_value(node, 0))))

    # -- layers

    def emit(
        self,
        kind: str,
        name: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        params: Mapping[int, Param] | None = None,
        weights: Sequence[Weight] = (),
    ) -> tuple[str, ...]:
        """Append a layer.

        Args:
            kind: Its type.
            name: Wanted for it; made unique.
            inputs: Blobs.
            outputs: Names wanted for its blobs; made unique.
            params: Its parameters.
            weights: Its arrays.

        Returns:
            The names of its blobs.
        """
        blobs = tuple(unique_name(o, self._blob_names) for o in outputs)
        title = unique_name(name, self._layer_names)
        ordered = dict(sorted((params or {}).items()))
        self.layers.append(Layer(kind, title, tuple(inputs), blobs, ordered, tuple(weights)))
        return blobs

    def result(
        self,
        node: ir.Node,
        kind: str,
        inputs: Sequence[str],
        params: Mapping[int, Param] | None = None,
        weights: Sequence[Weight] = (),
    ) -> None:
        """Append the layer that makes a node's outputs."""
        made = [self.made_by(node)] if len(node.outputs) == 1 else list(node.outputs)
        names = [v.name or "value" for v in made]
        for value, blob in zip(
            made, self.emit(kind, self.title(node), inputs, names, params, weights), strict=True
        ):
            self.bind(value, blob)

    def bind(self, value: ir.Value, blob: str) -> None:
        """Say which blob holds a value."""
        self.blobs[value.name or ""] = blob

    def made_by(self, node: ir.Node) -> ir.Value:
        """The value that the layer of a node makes: the fused activation's where it has one."""
        activation = self.plan.activations.get(node)
        return (activation or node).outputs[0]

    def title(self, node: ir.Node) -> str:
        """What a node's layer is called: its module in the source, or what it makes."""
        return module_path(node) or self.made_by(node).name or node.op_type

    def output_name(self, node: ir.Node) -> str:
        """Stem for the blobs in between."""
        return node.outputs[0].name or node.op_type
