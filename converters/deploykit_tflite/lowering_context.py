"""What a lowering function works with: tensors of values, constants, fused activations.

A function reads its operands by `LoweringContext.input`, asks for the tensor to write by
`LoweringContext.output`, and appends operators by `LoweringContext.emit`. Where a value is held in
another layout, type or scale than the function's operator reads or writes, the context inserts
exactly the TRANSPOSE, RESHAPE, QUANTIZE or DEQUANTIZE that is needed, once a value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from deploykit.graph.node_fields import FormError, needed_value, shape_of
from deploykit.graph.reading import constant_array, is_constant
from deploykit.lowering import LoweringTable
from deploykit.model import Precision
from deploykit.tensors import Array, QuantParams
from deploykit_tflite import layout
from deploykit_tflite.float_only import FLOAT_ONLY_OPS
from deploykit_tflite.plan_fusions import Bounds, FusionPlan, activation_of
from deploykit_tflite.tflite_graph import (
    ACTIVATION_NAMES,
    ACTIVATION_NONE,
    TfliteGraph,
)

if TYPE_CHECKING:
    import onnx_ir as ir

Lower = Callable[["ir.Node", "LoweringContext"], None]
TABLE: LoweringTable[Lower] = LoweringTable("tflite")


class LoweringContext:
    """The state of one lowering.

    Args:
        graph: The TFLite graph that is built.
        precision: What the artefact computes in.
        params: Value name → quantization, for values and constants that are integers.
        integers: Constant name → its integers in ONNX's layout, where `params` has it.
        plan: Which activations are fused.
    """

    def __init__(
        self,
        graph: TfliteGraph,
        precision: Precision,
        params: Mapping[str, QuantParams],
        integers: Mapping[str, Array],
        plan: FusionPlan,
    ) -> None:
        self.graph = graph
        self.precision = precision
        self.params = params
        self.integers = integers
        self.plan = plan
        #: Whether the node that is being lowered computes in integers.
        self.integer = False
        self.tensors: dict[str, int] = {}
        #: Values whose tensors cannot be compared with them.
        self.unlike: set[str] = set()
        self._transposed: dict[tuple[int, tuple[int, ...]], int] = {}
        self._requantized: dict[tuple[int, QuantParams], int] = {}
        self._dequantized: dict[int, int] = {}
        self._pending: list[Callable[[], None]] = []

    def begin(self, node: ir.Node, *, integer: bool) -> None:
        """Start a node.

        Args:
            node: The node.
            integer: Whether all that it reads and writes is integers.
        """
        self.integer = integer and node.op_type not in FLOAT_ONLY_OPS
        self._pending.clear()

    def end(self) -> None:
        """Finish a node: bring what it wrote to the layout and scale that others expect."""
        for step in self._pending:
            step()
        self._pending.clear()

    def bind(self, value: ir.Value, tensor: int) -> None:
        """Say that a tensor holds a value."""
        self.tensors[value.name or ""] = tensor

    def bind_unlike(self, value: ir.Value, tensor: int) -> None:
        """Say that a tensor holds a value's elements in an order that is not the value's own."""
        self.bind(value, tensor)
        self.unlike.add(value.name or "")

    # -- operands

    def shape(self, node: ir.Node, index: int = 0) -> tuple[int, ...]:
        """The shape of an operand in ONNX's order of axes."""
        return shape_of(needed_value(node, index))

    def output_shape(self, node: ir.Node, index: int = 0) -> tuple[int, ...]:
        """The shape of an output in ONNX's order of axes."""
        return shape_of(node.outputs[index])

    def input_params(self, node: ir.Node, index: int = 0) -> QuantParams | None:
        """The quantization of an operand of an integer node; None in a float one."""
        value = needed_value(node, index)
        return self.params.get(value.name or "") if self.integer else None

    def output_params(self, node: ir.Node, index: int = 0) -> QuantParams | None:
        """The quantization of what a node writes; None in a float one."""
        value = self.final_value(node, index)
        return self.params.get(value.name or "") if self.integer else None

    def input(self, node: ir.Node, index: int = 0, *, params: QuantParams | None = None) -> int:
        """The tensor of an operand, held NHWC if its rank is 4.

        Args:
            node: The node that is lowered.
            index: Which input of it.
            params: The scale that its operator needs it in; by default its own.
        """
        value = needed_value(node, index)
        if is_constant(value):
            order = layout.held_order(len(shape_of(value)))
            return self.constant(value, lambda a: a.transpose(order), params=params)
        tensor = self.tensors[value.name or ""]
        held = self.graph.tensors[tensor].quantization
        if not self.integer and held is not None:
            return self.dequantized(tensor)
        if params is not None and held != params:
            return self.requantized(tensor, params)
        return tensor

    def input_in_onnx_order(self, node: ir.Node, index: int = 0) -> int:
        """The tensor of an operand with its axes in ONNX's order."""
        value = needed_value(node, index)
        if is_constant(value):
            return self.constant(value, lambda a: a)
        rank = len(shape_of(value))
        return self.transposed(self.input(node, index), layout.inverted(layout.held_order(rank)))

    def constant(
        self,
        value: ir.Value,
        arranged: Callable[[Array], Array],
        *,
        params: QuantParams | None = None,
    ) -> int:
        """A tensor with a constant's elements, in the element type of the node.

        Args:
            value: The constant.
            arranged: From its array in ONNX's layout to the wanted shape and order.
            params: The scale that an integer node needs it in; by default its own, or one chosen
                for its range if the quantized stage left it in float.
        """
        name = value.name or "constant"
        if self.integer:
            own = self.params.get(name)
            if own is not None and params in (None, own) and not own.per_channel:
                return self.graph.add_constant(name, arranged(self.integers[name]), own)
        reals = constant_array(value)
        if reals is None:
            raise FormError(f"'{name}' is computed, not constant")
        array = arranged(reals).astype(np.float32, copy=False)
        if not self.integer:
            return self.graph.add_constant(name, array)
        chosen = params or constant_params(array)
        return self.graph.add_constant(name, chosen.quantize(array), chosen)

    # -- results

    def final_value(self, node: ir.Node, index: int = 0) -> ir.Value:
        """What a node writes: its output, or that of the activation fused into it."""
        if node in self.plan.fused:
            return self.plan.fused[node][0].outputs[0]
        return node.outputs[index]

    def activation(self, node: ir.Node) -> int:
        """The activation that the node's last operator applies."""
        if node not in self.plan.fused:
            return ACTIVATION_NONE
        found = activation_of(self.plan.fused[node][1], self.output_params(node))
        return ACTIVATION_NONE if found is None else found

    def output(
        self,
        node: ir.Node,
        index: int = 0,
        *,
        order: Sequence[int] | None = None,
        params: QuantParams | None = None,
        clamps: bool = True,
    ) -> int:
        """The tensor that a node's last operator writes.

        Args:
            node: The node that is lowered.
            index: Which output of it.
            order: The ONNX axes of the output in the order in which the operator writes them;
                by default as the file holds them.
            params: The scale that the operator's specification forces; by default the output's.
            clamps: Whether the operator applies `activation`; if not, a fused activation becomes
                an operator behind it.
        """
        value = self.final_value(node, index)
        shape = shape_of(value)
        declared = self.params.get(value.name or "")
        if declared is None and self.integer:
            declared = params  # nobody reads it: the quantized stage gave it no scale
        target = self.new(value.name or "", layout.held_shape(shape), declared)
        self.bind(value, target)
        if declared is not None and not self.integer:
            target = self._before(target, "float32", self._quantize, params=None)
        declared = self.output_params(node, index)
        if node in self.plan.fused:
            bounds = self.plan.fused[node][1]
            code = activation_of(bounds, declared)
            if code is None or (code != ACTIVATION_NONE and not clamps):
                target = self._before(target, "unclamped", self._clamp(bounds))
        if params is not None and declared is not None and params != declared:
            target = self._before(target, "unscaled", self._quantize, params=params)
        held = layout.held_order(len(shape))
        if order is not None and tuple(order) != held:
            permutation = tuple(tuple(order).index(axis) for axis in held)
            target = self._before(
                target,
                "unordered",
                lambda source, to: self.transpose(source, to, permutation),
                shape=[shape[axis] for axis in order],
            )
        return target

    def alias(self, node: ir.Node, tensor: int) -> None:
        """The node's output is a tensor that is there already."""
        held = self.graph.tensors[tensor].quantization
        value = node.outputs[0]
        is_input = tensor in self.graph.inputs
        declared = self.params.get(value.name or "")
        if value.is_graph_output() or is_input or held != declared:
            self.reshape(tensor, self.output(node, params=held))
        else:
            self.bind(value, tensor)

    def new(self, name: str, shape: Sequence[int], params: QuantParams | None = None) -> int:
        """A new tensor; float32 unless it has parameters."""
        dtype = params.dtype if params is not None else "float32"
        return self.graph.add_tensor(name, shape, dtype, params)

    def like(self, tensor: int, suffix: str, shape: Sequence[int] | None = None) -> int:
        """A new tensor of the element type and scale of another."""
        model = self.graph.tensors[tensor]
        wanted = model.shape if shape is None else shape
        return self.new(f"{model.name}/{suffix}", wanted, model.quantization)

    # -- operators

    def emit(
        self,
        code: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: str = "",
        **fields: Any,
    ) -> None:
        """Append an operator."""
        self.graph.add_op(code, inputs, outputs, options, **fields)

    def reshape(self, source: int, target: int) -> None:
        """RESHAPE to the target's shape."""
        shape = self.graph.tensors[target].shape
        operand = self.graph.add_integers("shape", shape)
        self.emit("RESHAPE", (source, operand), (target,), "ReshapeOptions", newShape=[*shape])

    def reshaped(self, source: int, shape: Sequence[int]) -> int:
        """The tensor in another shape; itself if that is its shape."""
        if self.graph.tensors[source].shape == tuple(shape):
            return source
        target = self.like(source, "reshaped", shape)
        self.reshape(source, target)
        return target

    def transpose(self, source: int, target: int, permutation: Sequence[int]) -> None:
        """TRANSPOSE, or RESHAPE where no element moves."""
        if not layout.moves_data(self.graph.tensors[source].shape, permutation):
            self.reshape(source, target)
            return
        operand = self.graph.add_integers("permutation", permutation)
        self.emit("TRANSPOSE", (source, operand), (target,), "TransposeOptions")

    def transposed(self, source: int, permutation: Sequence[int]) -> int:
        """The tensor transposed, once for all who ask; itself if nothing changes."""
        key = (source, tuple(permutation))
        if key[1] == tuple(range(len(permutation))):
            return source
        if key not in self._transposed:
            shape = self.graph.tensors[source].shape
            target = self.like(source, "transposed", [shape[axis] for axis in permutation])
            self.transpose(source, target, permutation)
            self._transposed[key] = target
        return self._transposed[key]

    def dequantized(self, source: int) -> int:
        """The tensor in float32, once for all who ask."""
        if source not in self._dequantized:
            model = self.graph.tensors[source]
            target = self.new(f"{model.name}/float32", model.shape)
            self.emit("DEQUANTIZE", (source,), (target,), "DequantizeOptions")
            self._dequantized[source] = target
        return self._dequantized[source]

    def requantized(self, source: int, params: QuantParams) -> int:
        """The tensor in another scale, once for all who ask."""
        key = (source, params)
        if key not in self._requantized:
            model = self.graph.tensors[source]
            target = self.new(f"{model.name}/requantized", model.shape, params)
            self._quantize(source, target)
            self._requantized[key] = target
        return self._requantized[key]

    def clamp(self, source: int, target: int, bounds: Bounds) -> None:
        """RELU, RELU6 or RELU_N1_TO_1 where one of them fits; otherwise MINIMUM and MAXIMUM."""
        params = self.graph.tensors[target].quantization
        code = activation_of(bounds, params)
        if code == ACTIVATION_NONE:
            if self.graph.tensors[source].quantization == params:
                self.reshape(source, target)
            else:
                self._quantize(source, target)
            return
        if code is not None:
            self.emit(ACTIVATION_NAMES[code], (source,), (target,))
            return
        if params is not None and self.graph.tensors[source].quantization != params:
            source = self.requantized(source, params)
        edges = [("MAXIMUM", bounds[0]), ("MINIMUM", bounds[1])]
        steps = [(name, edge) for name, edge in edges if np.isfinite(edge)]
        for name, edge in steps:
            into = target if name == steps[-1][0] else self.like(target, "low_clamped")
            bound = np.asarray(edge, dtype=np.float32)
            data = bound if params is None else params.quantize(bound)
            operand = self.graph.add_constant("bound", data, params)
            self.emit(name, (source, operand), (into,), "MaximumMinimumOptions")
            source = into

    def _clamp(self, bounds: Bounds) -> Callable[[int, int], None]:
        return lambda source, target: self.clamp(source, target, bounds)

    def _quantize(self, source: int, target: int) -> None:
        self.emit("QUANTIZE", (source,), (target,), "QuantizeOptions")

    def _before(
        self,
        target: int,
        suffix: str,
        step: Callable[[int, int], None],
        *,
        shape: Sequence[int] | None = None,
        params: QuantParams | Literal["same"] | None = "same",
    ) -> int:
        model = self.graph.tensors[target]
        source = self.new(
            f"{model.name}/{suffix}",
            model.shape if shape is None else shape,
            model.quantization if params == "same" else params,
        )
        self._pending.insert(0, lambda: step(source, target))
        return source


def constant_params(array: Array) -> QuantParams:
    """Parameters for a constant that the quantized stage left in float: symmetric int8.

    The largest magnitude stands for 127, so that a constant of one element is exact to float32's
    own rounding.
    """
    largest = float(np.abs(array).max()) if array.size else 0.0
    return QuantParams((largest / 127 if largest > 0 else 1.0,), (0,), "int8")
