"""A grouped pointwise convolution becomes one convolution a group.

    conv(x, W, group = g) = concat_i conv(x[:, channels of group i], W[rows of group i])

1.  It stands beside a shuffle of as many groups (Zhang et al. 2017, "ShuffleNet", whose unit is
    grouped convolution, shuffle, depthwise, grouped convolution, addition). Then the groups are
    carried apart from there on (`deploykit.passes.channel_parts`): activations, depthwise
    convolutions, additions and pools work on the parts, and the next grouped convolution reads
    them as they are. What is left of the shuffle are g x g slices of the bottleneck, which
    `AbsorbChannelPermutations` makes.
2.  It stands alone, and the input has at least ``min_ratio`` times the channels of the output, over
    at most ``max_pixels`` pixels. What is copied into the slices is then little beside what the
    kernels gain by a plain layout.

Kernel 1 x 1, stride 1, at most ``max_groups`` groups.

For float only: the values between have no calibration, and in int8 the grouped kernel is the
fastest (docs/latency.md has the measurements). Reasons: the rule does not hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from deploykit.graph.editing import GraphEditor
from deploykit.graph.ops import DOMAIN
from deploykit.graph.reading import (
    constant_array,
    input_at,
    is_op,
    known_shape,
    only_reader,
    producer_of,
    read_int,
)
from deploykit.passes.base import Findings, Pass, PassResult
from deploykit.passes.channel_parts import ChannelParts

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
        apart, alone = ChannelParts(editor), ChannelParts(editor)
        for node in list(model.graph):
            group = read_int(node, "group", 1) if is_op(node, "Conv") else 1
            if group == 1 or group == known_shape(node.inputs[0])[1]:
                if apart.carry(node):
                    findings.matched(node, "done on the parts of what it reads")
                continue
            reason = self.why_not(node)
            if reason:
                findings.skipped(node, reason)
                continue
            findings.matched(node, f"{group} groups > {group} convolutions")
            _split(node, group, apart if _meets_shuffle(node, group) else alone)
        made = [v.producer() for v in reversed((*apart.parts, *alone.parts))]
        editor.remove_if_unread(*(n for n in made if n is not None))
        return findings.result()

    def why_not(self, node: ir.Node) -> str:
        """Why a grouped Conv stays; empty if it pays to split it."""
        weights = constant_array(input_at(node, 1))
        if weights is None or weights.shape[2:] != (1, 1):
            return "it is not pointwise, or its weights are computed"
        if input_at(node, 2) is not None and constant_array(input_at(node, 2)) is None:
            return "its bias is computed"
        group = read_int(node, "group", 1)
        if group > self.max_groups:
            return f"{group} groups: each would be too small"
        (_, read, height, width), made = known_shape(node.inputs[0]), known_shape(node.outputs[0])
        if made[2:] != (height, width):
            return "it has a stride"
        if _meets_shuffle(node, group):
            return ""
        if height * width > self.max_pixels or read < self.min_ratio * made[1]:
            return f"{read} > {made[1]} channels over {height} x {width}: the slices cost more"
        return ""


def _meets_shuffle(node: ir.Node, group: int) -> bool:
    """Whether a shuffle in as many groups follows, or precedes, behind channelwise ops."""
    reader = only_reader(node.outputs[0])
    while is_op(reader, "Relu", "Clip"):
        assert reader is not None
        reader = only_reader(reader.outputs[0])
    maker = producer_of(node.inputs[0])
    while is_op(maker, "Relu", "Clip") or (maker is not None and _is_depthwise(maker)):
        assert maker is not None
        maker = producer_of(maker.inputs[0])
    return any(
        one is not None
        and is_op(one, "ChannelShuffle", domain=DOMAIN)
        and read_int(one, "groups", 1) == group
        for one in (reader, maker)
    )


def _is_depthwise(node: ir.Node) -> bool:
    return is_op(node, "Conv") and read_int(node, "group", 1) == known_shape(node.inputs[0])[1]


def _split(node: ir.Node, group: int, parts: ChannelParts) -> None:
    source, output = node.inputs[0], node.outputs[0]
    weights, bias = constant_array(node.inputs[1]), constant_array(input_at(node, 2))
    assert source is not None
    assert weights is not None
    (n, channels, height, width), rows = known_shape(source), len(weights) // group
    size = channels // group
    attributes = {k: a.value for k, a in node.attributes.items()} | {"group": 1}
    name, made = output.name or "conv", []
    for i in range(group):
        mine = slice(i * rows, (i + 1) * rows)
        inputs = [
            parts.take(source, i * size, (i + 1) * size, node),
            parts.editor.constant(f"{name}.weights", weights[mine]),
        ]
        if bias is not None:
            inputs.append(parts.editor.constant(f"{name}.bias", bias[mine]))
        made.append(
            parts.editor.node(
                "Conv",
                inputs,
                (n, rows, height, width),
                like=node,
                name=f"{name}.group_{i}",
                attributes=attributes,
            )
        )
    parts.join(made, output)
