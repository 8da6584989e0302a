"""A grouped pointwise convolution becomes one convolution a group, on slices of its input.

    conv(x, W, group = g) = concat_i conv(x[:, channels of group i], W[rows of group i])

1.  Kernel 1 x 1, stride 1, at most ``max_groups`` groups, and the rule holds: the input has at
    least ``min_ratio`` times the channels of the output, over at most ``max_pixels`` pixels. What
    is copied into the slices is then little beside what the kernels gain by a plain layout.

For float only: the values between have no calibration, and in int8 the grouped kernel is the
fastest (docs/latency.md has the measurements). Reasons: the rule does not hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from deploykit.graph.editing import GraphEditor
from deploykit.graph.reading import constant_array, input_at, is_op, known_shape, read_int
from deploykit.passes.base import Findings, Pass, PassResult

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class SplitGroupedConvolutions(Pass):
    """See the module's docstring.

    Attributes:
        min_ratio: Least number of input channels over output channels.
        max_pixels: Most pixels of the map.
        max_groups: Most groups.
    """

    min_ratio: float = 2.0
    max_pixels: int = 256
    max_groups: int = 4
    breaks: ClassVar[frozenset[str]] = frozenset({"no_dead_code"})

    def apply(self, model: ir.Model) -> PassResult:
        """Split every grouped convolution for which it pays; its output keeps its name."""
        findings = Findings(self.name)
        editor = GraphEditor(model.graph)
        for node in list(model.graph):
            group = read_int(node, "group", 1) if is_op(node, "Conv") else 1
            if group == 1 or group == known_shape(node.inputs[0])[1]:
                continue
            reason = self.why_not(node)
            if reason:
                findings.skipped(node, reason)
                continue
            findings.matched(node, f"{group} groups > {group} convolutions on slices")
            _split(node, group, editor)
        return findings.result()

    def why_not(self, node: ir.Node) -> str:
        """Why a grouped Conv stays; empty if it pays to split it."""
        weights = constant_array(input_at(node, 1))
        if weights is None or weights.shape[2:] != (1, 1):
            return "it is not pointwise, or its weights are computed"
        if read_int(node, "group", 1) > self.max_groups:
            return f"{read_int(node, 'group', 1)} groups: each would be too small"
        (_, read, height, width), made = known_shape(node.inputs[0]), known_shape(node.outputs[0])
        if made[2:] != (height, width):
            return "it has a stride"
        if height * width > self.max_pixels or read < self.min_ratio * made[1]:
            return f"{read} > {made[1]} channels over {height} x {width}: the slices cost more"
        return ""


def _split(node: ir.Node, group: int, editor: GraphEditor) -> None:
    source, output = node.inputs[0], node.outputs[0]
    weights, bias = constant_array(node.inputs[1]), constant_array(input_at(node, 2))
    assert source is not None
    assert weights is not None
    (n, channels, height, width), rows = known_shape(source), len(weights) // group
    size = channels // group
    attributes = {k: tuple(a.as_ints()) for k, a in node.attributes.items() if k != "group"}
    name = output.name or "conv"
    parts = []
    for i in range(group):
        bounds = {"starts": i * size, "ends": (i + 1) * size, "axes": 1, "steps": 1}
        stem = f"{source.name}.channels_{i * size}_{(i + 1) * size}"
        part = editor.node(
            "Slice",
            [source, *(editor.ints(f"{stem}.{k}", [v]) for k, v in bounds.items())],
            (n, size, height, width),
            like=node,
            name=stem,
        )
        inputs = [part, editor.constant(f"{name}.weights", weights[i * rows : (i + 1) * rows])]
        if bias is not None:
            inputs.append(editor.constant(f"{name}.bias", bias[i * rows : (i + 1) * rows]))
        shape = (n, rows, height, width)
        parts.append(
            editor.node(
                "Conv",
                inputs,
                shape,
                like=node,
                name=f"{name}.group_{i}",
                attributes={**attributes, "group": 1},
            )
        )
    joined = editor.node(
        "Concat", parts, known_shape(output), like=node, name=name, attributes={"axis": 1}
    )
    editor.take_over(output, joined)
    editor.remove_if_unread(node)
