"""1-D windows as 2-D ones over a map of one row.

A Conv, ConvTranspose or pool over (n, c, l) is the same over (n, c, 1, l) with a window of one
row; targets know two spatial axes. A Reshape leads there and one leads back; what stands between
two such layers (activations, BatchNormalization, arithmetic, Concat of channels) is lifted along,
so that a whole 1-D network keeps one Reshape at each end.

Reasons not to: weights that are computed or quantized, MaxPool whose indices are read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from deploykit.graph.editing import GraphEditor, set_attributes, set_input
from deploykit.graph.ops import BINARY_OPS, LINEAR_OPS, POOLS, UNARY_OPS
from deploykit.graph.reading import (
    constant_array,
    input_at,
    is_constant,
    is_op,
    read_int,
    static_shape,
)
from deploykit.passes.base import Findings, Pass, PassResult

if TYPE_CHECKING:
    import onnx_ir as ir

_WINDOWS = (LINEAR_OPS - {"Gemm"}) | POOLS | {"LpPool"}
#: Attributes with a number for each spatial axis → what the new axis has.
_OF_AXES = {"kernel_shape": 1, "strides": 1, "dilations": 1, "output_padding": 0, "output_shape": 1}
#: Beside the canonical ones, those of before canonicalization.
_POINTWISE = UNARY_OPS | {
    *("Identity", "Dropout", "BatchNormalization", "GlobalAveragePool", "GlobalMaxPool")
}
_TOGETHER = (BINARY_OPS - {"Pow"}) | {"Sum"}


@dataclass(frozen=True)
class LiftOneDimension(Pass):
    """See the module's docstring."""

    requires: ClassVar[frozenset[str]] = frozenset({"static_shapes", "no_functions"})
    breaks: ClassVar[frozenset[str]] = frozenset({"no_dead_code"})

    def apply(self, model: ir.Model) -> PassResult:
        """Lift every layer that can be, in the graph's order."""
        findings = Findings(self.name)
        lifter = _Lifter(GraphEditor(model.graph))
        for node in list(model.graph):
            if node.domain == "" and len(static_shape(input_at(node, 0)) or ()) == 3:
                _lift(node, lifter, findings)
        return findings.result()


@dataclass
class _Lifter:
    editor: GraphEditor
    lifted: dict[ir.Value, ir.Value] = field(default_factory=dict)

    def raised(self, value: ir.Value, before: ir.Node) -> ir.Value:
        """A value of rank 3 with a row axis: as it was computed, or behind a Reshape."""
        if value not in self.lifted:
            n, c, length = static_shape(value) or ()
            shape = (n, c, 1, length)
            wanted = self.editor.ints(f"{value.name}.as_map", shape)
            self.lifted[value] = self.editor.node(
                "Reshape",
                [value, wanted],
                shape,
                like=before,
                name=f"{value.name}.map",
                attributes={"allowzero": 0},
                dtype=value.dtype,
            )
        return self.lifted[value]

    def lower(self, node: ir.Node) -> None:
        """The node gives a map now: a Reshape behind it takes over its name and shape."""
        shape = static_shape(node.outputs[0]) or ()
        n, c, length = shape
        wanted = self.editor.ints(f"{node.outputs[0].name}.as_row", shape)
        behind = self.editor.follow(
            node, "Reshape", [wanted], shape=shape, attributes={"allowzero": 0}
        )
        self.editor.set_shape(node.outputs[0], (n, c, 1, length))
        self.lifted[behind.outputs[0]] = node.outputs[0]


def _lift(node: ir.Node, lifter: _Lifter, findings: Findings) -> None:
    if node.op_type in _WINDOWS:
        reason = _why_not(node)
        if reason:
            findings.skipped(node, reason)
            return
        _lift_window(node, lifter)
    elif node.op_type in _POINTWISE and node.inputs[0] in lifter.lifted:
        set_input(node, 0, lifter.raised(node.inputs[0], node))
    elif _goes_along(node, lifter):
        _lift_operands(node, lifter)
    else:
        return
    lifter.lower(node)
    findings.matched(node, f"{node.op_type} over a row > over a map of one row")


def _why_not(node: ir.Node) -> str:
    if len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output()):
        return "its indices are read"
    if is_op(node, "Conv", "ConvTranspose") and not is_constant(node.inputs[1]):
        return "its weights are not constant"
    return ""


def _lift_window(node: ir.Node, lifter: _Lifter) -> None:
    set_input(node, 0, lifter.raised(node.inputs[0], node))  # type: ignore[arg-type]
    if len(node.outputs) > 1:
        node.resize_outputs(1)
    weights = constant_array(input_at(node, 1))
    if is_op(node, "Conv", "ConvTranspose") and weights is not None:
        out, read, length = weights.shape
        name = f"{node.inputs[1].name}.map"  # type: ignore[union-attr]
        shaped = weights.reshape(out, read, 1, length)
        set_input(node, 1, lifter.editor.constant(name, shaped))
    for name, neutral in _OF_AXES.items():
        attribute = node.attributes.get(name)
        if attribute is not None:
            set_attributes(node, **{name: (neutral, *attribute.as_ints())})
    pads = node.attributes.get("pads")
    if pads is not None:
        start, end = pads.as_ints()
        set_attributes(node, pads=(0, start, 0, end))


def _goes_along(node: ir.Node, lifter: _Lifter) -> bool:
    """Whether a node of several operands can be computed on maps, one of which is there already."""
    if len(static_shape(node.outputs[0]) or ()) != 3:
        return False
    computed = [v for v in node.inputs if v is not None and not is_constant(v)]
    if any(len(static_shape(v) or ()) != 3 for v in computed):
        return False
    if node.op_type == "Concat":
        known = all(v in lifter.lifted for v in node.inputs)
        return known and read_int(node, "axis", 0) % 3 == 1
    return node.op_type in _TOGETHER and any(v in lifter.lifted for v in computed)


def _lift_operands(node: ir.Node, lifter: _Lifter) -> None:
    for index, value in enumerate(node.inputs):
        if value is None:
            continue
        array = constant_array(value)
        if array is None:
            set_input(node, index, lifter.raised(value, node))
        elif array.ndim > 1:
            shape = (*array.shape[:-1], 1, array.shape[-1])
            raised = lifter.editor.constant(f"{value.name}.map", array.reshape(shape))
            set_input(node, index, raised)
