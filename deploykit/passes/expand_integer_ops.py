"""Ops that compute on integers (ONNX's QOperator form) in the QDQ form.

1.  ``QLinearConv``, ``QLinearMatMul``, and ONNX Runtime's ``QGemm``, ``QLinearAdd``,
    ``QLinearMul``, ``QLinearSigmoid``, ``QLinearLeakyRelu``, ``QLinearSoftmax``, ``QLinearConcat``
    and its pools: DequantizeLinear for each operand, the float op, QuantizeLinear. The int32 bias
    of a convolution or linear layer has the scale of its input times that of its weights, as the
    specification of QLinearConv says.
2.  An op that only moves values, or picks some, and reads integers whose scale is known (a MaxPool
    or Reshape between such ops): the same, with one scale on both sides.

Reasons: an op of this kind without a rule; channels on the last axis; a Softmax of the form before
opset 13 over several axes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from deploykit.graph.editing import AttributeValue, GraphEditor, make_attribute
from deploykit.graph.ops import SELECTING_OPS
from deploykit.graph.provenance import copy_provenance
from deploykit.graph.read_qdq import DEQUANTIZE, QUANTIZE, is_quantize
from deploykit.graph.reading import constant_array, input_at, read_int
from deploykit.passes.base import Findings, Pass, PassResult

if TYPE_CHECKING:
    import onnx_ir as ir

#: Scale and zero point of integers, as values of the graph.
Steps = tuple["ir.Value", "ir.Value | None"]

#: Of before canonicalization, beside the canonical ones.
_MOVING = SELECTING_OPS | {"Flatten", "Identity", "Pad", "Resize", "Squeeze", "Unsqueeze"}
_UNARY = {
    "QLinearAveragePool": "AveragePool",
    "QLinearGlobalAveragePool": "GlobalAveragePool",
    "QLinearLeakyRelu": "LeakyRelu",
    "QLinearSigmoid": "Sigmoid",
    "QLinearSoftmax": "Softmax",
}
_BINARY = {"QLinearAdd": "Add", "QLinearMul": "Mul", "QLinearMatMul": "MatMul"}
#: Attributes of the integer form only.
_DROPPED = ("channels_last", "opset")


@dataclass(frozen=True)
class ExpandIntegerOps(Pass):
    """See the module's docstring."""

    breaks: ClassVar[frozenset[str]] = frozenset({"static_shapes", "no_dead_code"})

    def apply(self, model: ir.Model) -> PassResult:
        """Write every integer op out, in the graph's order."""
        expansion = _Expansion(model.graph, Findings(self.name))
        for node in list(model.graph):
            expansion.visit(node)
        return expansion.findings.result()


@dataclass
class _Expansion:
    graph: ir.Graph
    findings: Findings
    held: dict[ir.Value, Steps] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.editor = GraphEditor(self.graph)

    def visit(self, node: ir.Node) -> None:
        """One node, after all that make what it reads."""
        if is_quantize(node):
            scale = node.inputs[1]
            assert scale is not None
            if node.attributes.get("axis") is None or _size(scale) == 1:
                self.held[node.outputs[0]] = (scale, input_at(node, 2))
        elif node.domain in ("", "com.microsoft") and node.op_type in _RULES:
            reason = _RULES[node.op_type](self, node)
            if reason:
                self.findings.skipped(node, reason)
        elif node.domain == "" and node.op_type in _MOVING:
            self._move_reals(node)
        elif node.op_type.startswith("QLinear"):
            self.findings.skipped(node, f"{node.op_type} has no rule")

    def real(self, node: ir.Node, index: int, axis: int | None = None) -> ir.Value:
        """What the integers at input ``index``, with scale and zero point behind, stand for."""
        scale = node.inputs[index + 1]
        assert scale is not None
        per_channel = axis is not None and _size(scale) > 1
        steps = (scale, input_at(node, index + 2))
        return self.dequantized(node, node.inputs[index], steps, axis if per_channel else None)

    def dequantized(
        self, node: ir.Node, integers: ir.Value | None, steps: Steps, axis: int | None = None
    ) -> ir.Value:
        """A DequantizeLinear before ``node``."""
        assert integers is not None
        inputs = [integers, *(s for s in steps if s is not None)]
        attributes = {} if axis is None else {"axis": axis}
        real = self._float(f"{integers.name}_dequantized", integers)
        self._insert(node, DEQUANTIZE, inputs, real, attributes)
        return real

    def bias(self, node: ir.Node, index: int) -> ir.Value | None:
        """The reals of an int32 bias of a layer that reads data at 0 and weights at 3."""
        value = input_at(node, index)
        integers = constant_array(value)
        scales = [constant_array(node.inputs[i]) for i in (1, 4)]
        if value is None or integers is None or any(s is None for s in scales):
            return None
        product = (scales[0].reshape(-1) * scales[1].reshape(-1)).astype(np.float32)  # type: ignore[union-attr]
        per_channel = product.size > 1
        steps = product if per_channel else product[0]
        scale = self.editor.constant(f"{value.name}_scale", np.asarray(steps, np.float32))
        return self.dequantized(node, value, (scale, None), 0 if per_channel else None)

    def replace(
        self,
        node: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        steps: Steps | None,
        attributes: Mapping[str, AttributeValue] | None = None,
    ) -> str:
        """The float op and, with ``steps``, the QuantizeLinear, in the place of ``node``."""
        import onnx_ir as ir

        output = node.outputs[0]
        kept = [a for name, a in node.attributes.items() if name not in _DROPPED]
        if attributes is not None:
            kept = [make_attribute(name, value) for name, value in attributes.items()]
        result = self._float(f"{output.name}_real", output)
        self._insert(node, op_type, inputs, result, kept)
        if steps is not None:
            rounded = ir.Value(shape=output.shape, type=output.type)
            self._insert(node, QUANTIZE, [result, *(s for s in steps if s is not None)], rounded)
            self.held[rounded] = steps
            result = rounded
        self.editor.take_over(output, result)
        self.graph.remove(node, safe=True)
        self.findings.matched(result.name or "", f"{node.op_type} > {op_type} of reals")
        return ""

    def steps_at(self, node: ir.Node, index: int) -> Steps:
        """Scale and zero point at two inputs."""
        scale = node.inputs[index]
        assert scale is not None
        return scale, input_at(node, index + 1)

    def _move_reals(self, node: ir.Node) -> None:
        # Case 2.
        import onnx_ir as ir

        source = node.inputs[0]
        steps = self.held.get(source) if source is not None else None
        if source is None or steps is None:
            return
        node.replace_input_with(0, self.dequantized(node, source, steps))
        if node.op_type == "Pad":
            self._pad_with_real(node, steps)
        for index, output in enumerate(node.outputs):
            kind = output.type or source.type
            behind = self.editor.follow(
                node, QUANTIZE, [s for s in steps if s is not None], output=index
            )
            behind.outputs[0].type = kind
            output.type = ir.TensorType(ir.DataType.FLOAT)
            self.held[behind.outputs[0]] = steps
        self.findings.matched(node, f"{node.op_type} of integers > of reals")

    def _pad_with_real(self, node: ir.Node, steps: Steps) -> None:
        fill = constant_array(input_at(node, 2))
        scale, zero = constant_array(steps[0]), constant_array(steps[1])
        if scale is None:
            return
        middle = 0 if zero is None else int(zero.reshape(-1)[0])
        steps_off = (0 if fill is None else int(fill.reshape(-1)[0])) - middle
        real = np.float32(steps_off) * np.float32(scale.reshape(-1)[0])
        value = self.editor.constant(f"{node.outputs[0].name}.value", np.asarray(real, np.float32))
        if len(node.inputs) < 3:
            node.resize_inputs(3)
        node.replace_input_with(2, value)

    def _float(self, wish: str, like: ir.Value) -> ir.Value:
        import onnx_ir as ir

        taken = self.editor.constant(wish, np.zeros(0, np.float32))  # its name is free
        name = taken.name
        del self.graph.initializers[name or ""]
        return ir.Value(name=name, shape=like.shape, type=ir.TensorType(ir.DataType.FLOAT))

    def _insert(
        self,
        before: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        output: ir.Value,
        attributes: Mapping[str, AttributeValue] | Sequence[ir.Attr] = (),
    ) -> None:
        import onnx_ir as ir

        if isinstance(attributes, Mapping):
            attributes = [make_attribute(name, value) for name, value in attributes.items()]
        name = output.name or f"{before.name}_quantize"
        made = ir.Node("", op_type, inputs, attributes, outputs=[output], name=f"node_{name}")
        copy_provenance([before], made)
        self.graph.insert_before(before, made)


def _size(scale: ir.Value) -> int:
    found = constant_array(scale)
    return 1 if found is None else found.size


Rule = Callable[[_Expansion, "ir.Node"], str]


def _unary(to: _Expansion, node: ir.Node) -> str:
    if read_int(node, "channels_last", 0):
        return "channels on the last axis"
    softmax = node.op_type == "QLinearSoftmax"
    if softmax and read_int(node, "opset", 13) < 13 and read_int(node, "axis", 1) != -1:
        shape = node.inputs[0].shape if node.inputs[0] is not None else None
        if shape is None or read_int(node, "axis", 1) != len(shape) - 1:
            return "a Softmax of the form before opset 13"
    return to.replace(node, _UNARY[node.op_type], [to.real(node, 0)], to.steps_at(node, 3))


def _binary(to: _Expansion, node: ir.Node) -> str:
    columns = 1 if node.op_type == "QLinearMatMul" else None
    inputs = [to.real(node, 0), to.real(node, 3, columns)]
    return to.replace(node, _BINARY[node.op_type], inputs, to.steps_at(node, 6))


def _conv(to: _Expansion, node: ir.Node) -> str:
    if read_int(node, "channels_last", 0):
        return "channels on the last axis"
    inputs = [to.real(node, 0), to.real(node, 3, 0), to.bias(node, 8)]
    if inputs[2] is None:
        inputs.pop()
    return to.replace(node, "Conv", inputs, to.steps_at(node, 6))


def _gemm(to: _Expansion, node: ir.Node) -> str:
    columns = 0 if read_int(node, "transB", 0) else 1
    inputs = [to.real(node, 0), to.real(node, 3, columns), to.bias(node, 6)]
    if inputs[2] is None:
        inputs.pop()
    return to.replace(node, "Gemm", inputs, to.steps_at(node, 7) if input_at(node, 7) else None)


def _concat(to: _Expansion, node: ir.Node) -> str:
    inputs = [to.real(node, index) for index in range(2, len(node.inputs), 3)]
    return to.replace(node, "Concat", inputs, to.steps_at(node, 0))


_RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_UNARY, _unary),
    **dict.fromkeys(_BINARY, _binary),
    "QLinearConv": _conv,
    "QGemm": _gemm,
    "QLinearConcat": _concat,
}
