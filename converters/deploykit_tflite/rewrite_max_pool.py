"""A MaxPool's padding that is no SAME becomes one, at the cost of a row and a column of garbage.

TFLite pads a pooling window by its SAME rule or not at all; for 3 x 3 windows at stride 2 with one
row before (PyTorch's ``padding=1``) the rule has its row *behind* the image if the image has an
even number of rows, and one row on either side if it has an odd one. A PAD in between copies the
largest map of the network. Instead

1.  the Conv before the pool (with nothing but activations in between, all with one reader) writes
    the few rows and columns more with which SAME pads as much before as the pool wants, and
2.  what the pool makes of them, which is garbage, is sliced off its smaller output.

Exact: the windows that are kept reach neither the new rows nor padding behind them. Reasons: the
pads are SAME or VALID as they are; the pool does not follow a Conv; its last window reaches padding
behind the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from deploykit.graph.editing import GraphEditor, set_attributes
from deploykit.graph.op_facts import clamp_of
from deploykit.graph.reading import is_op, known_shape, producer_of, read_ints, why_not_private
from deploykit.passes.base import Findings, Pass, PassResult
from deploykit_tflite.lower_convolution import choose_padding

if TYPE_CHECKING:
    import onnx_ir as ir

#: How many rows or columns more a convolution may write.
_MOST_EXTRA = 2


@dataclass(frozen=True)
class RewriteMaxPool(Pass):
    """See the module's docstring."""

    breaks: ClassVar[frozenset[str]] = frozenset({"no_dead_code"})

    def apply(self, model: ir.Model) -> PassResult:
        """Rewrite in place; all values keep their names, those before the pool grow."""
        findings = Findings(self.name)
        editor = GraphEditor(model.graph)
        for node in list(model.graph):
            if not is_op(node, "MaxPool"):
                continue
            if len(known_shape(node.inputs[0])) != 4 or "auto_pad" in node.attributes:
                findings.skipped(node, "it is not in canonical form")
                continue
            extended, reason = _extended_size(node)
            chain, why_not_conv = _chain_before(node)
            if reason or why_not_conv:
                findings.skipped(node, reason or why_not_conv)
                continue
            _rewrite(node, chain, extended, editor)
            findings.matched(node, f"its Conv writes {extended}, so that its pads are SAME")
        return findings.result()


def _extended_size(node: ir.Node) -> tuple[tuple[int, int], str]:
    """Height and width with which SAME pads before as the pool does; or why there are none."""
    size, output = known_shape(node.inputs[0])[2:], known_shape(node.outputs[0])[2:]
    kernel, strides = read_ints(node, "kernel_shape", ()), read_ints(node, "strides", (1, 1))
    pads = read_ints(node, "pads", (0, 0, 0, 0))
    if not any(choose_padding(size, output, kernel, strides, pads).explicit):
        return (0, 0), "its pads need no PAD"
    found = []
    for i in (0, 1):
        if (output[i] - 1) * strides[i] - pads[i] + kernel[i] > size[i]:
            return (0, 0), "its last window reaches padding behind the image"
        fits = [
            n
            for n in range(size[i], size[i] + _MOST_EXTRA + 1)
            if _same_before(n, kernel[i], strides[i]) == pads[i]
        ]
        if not fits:
            return (0, 0), f"no size from {size[i]} on has {pads[i]} rows before by the SAME rule"
        found.append(fits[0])
    return (found[0], found[1]), ""


def _same_total(size: int, kernel: int, stride: int) -> int:
    return max((-(-size // stride) - 1) * stride + kernel - size, 0)


def _same_before(size: int, kernel: int, stride: int) -> int:
    return _same_total(size, kernel, stride) // 2


def _chain_before(node: ir.Node) -> tuple[list[ir.Node], str]:
    """The Conv and the activations before a pool, last first."""
    chain: list[ir.Node] = []
    value = node.inputs[0]
    while True:
        producer = producer_of(value)
        if value is None or producer is None:
            return [], "it does not follow a Conv"
        reason = why_not_private(value)
        if reason:
            return [], reason
        chain.append(producer)
        if is_op(producer, "Conv"):
            return chain, ""
        if clamp_of(producer) is None:
            return [], f"it follows {producer.op_type}, not a Conv"
        value = producer.inputs[0]


def _rewrite(
    node: ir.Node, chain: list[ir.Node], extended: tuple[int, int], editor: GraphEditor
) -> None:
    convolution = chain[-1]
    size = known_shape(convolution.inputs[0])[2:]
    weights = known_shape(convolution.inputs[1])[2:]
    strides = read_ints(convolution, "strides", (1, 1))
    dilations = read_ints(convolution, "dilations", (1, 1))
    top, left, _, _ = read_ints(convolution, "pads", (0, 0, 0, 0))
    before = (top, left)
    after = [
        (extended[i] - 1) * strides[i] + dilations[i] * (weights[i] - 1) + 1 - size[i] - before[i]
        for i in (0, 1)
    ]
    set_attributes(convolution, pads=(top, left, *after))
    for one in chain:
        for value in one.outputs:
            editor.set_shape(value, (*known_shape(value)[:2], *extended))
    kernel, steps = read_ints(node, "kernel_shape", ()), read_ints(node, "strides", (1, 1))
    pads = read_ints(node, "pads", (0, 0, 0, 0))
    totals = [_same_total(extended[i], kernel[i], steps[i]) for i in (0, 1)]
    set_attributes(node, pads=(*pads[:2], totals[0] - pads[0], totals[1] - pads[1]))
    output = node.outputs[0]
    n, channels, height, width = known_shape(output)
    bounds = {
        "starts": (0, 0),
        "ends": (height, width),
        "axes": (2, 3),
        "steps": (1, 1),
    }
    inputs = [editor.ints(f"{output.name}.{key}", v) for key, v in bounds.items()]
    editor.follow(node, "Slice", inputs, shape=(n, channels, height, width))
    full = [-(-extended[i] // steps[i]) for i in (0, 1)]
    editor.set_shape(node.outputs[0], (n, channels, *full))
