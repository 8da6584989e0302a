"""Channel shuffles: deploykit's functions ChannelShuffle and ConcatShuffleSplit.

A shuffle in g groups sends channel i * (C / g) + j to j * g + i (Zhang et al., "ShuffleNet", 2018).
Held NHWC, it is one transpose of the last two axes of (pixels, g, C / g): three axes, never a
GATHER, and delegates take it together with all around it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploykit.graph.node_fields import FormError, needed_int
from deploykit.graph.ops import DOMAIN
from deploykit_tflite import layout
from deploykit_tflite.lower_shape import emit_concat, emit_split
from deploykit_tflite.lowering_context import TABLE, LoweringContext

if TYPE_CHECKING:
    import onnx_ir as ir


@TABLE.register("ChannelShuffle", domain=DOMAIN)
def lower_channel_shuffle(node: ir.Node, context: LoweringContext) -> None:
    """RESHAPE, TRANSPOSE, RESHAPE."""
    source = context.input(node)
    params = context.graph.tensors[source].quantization
    target = context.output(node, params=params)
    _emit_shuffle(context, source, target, needed_int(node, "groups"))


@TABLE.register("ConcatShuffleSplit", domain=DOMAIN)
def lower_concat_shuffle_split(node: ir.Node, context: LoweringContext) -> None:
    """CONCATENATION, RESHAPE, TRANSPOSE, RESHAPE, SPLIT."""
    params = context.output_params(node) or context.output_params(node, 1)  # one may be unread
    operands = [context.input(node, i, params=params) for i in range(len(node.inputs))]
    n, h, w, _ = context.graph.tensors[operands[0]].shape
    channels = sum(context.graph.tensors[t].shape[3] for t in operands)
    joined = context.like(operands[0], "joined", (n, h, w, channels))
    emit_concat(context, operands, joined, axis=3)
    shuffled = context.like(joined, "shuffled")
    _emit_shuffle(context, joined, shuffled, needed_int(node, "groups"))
    targets = [context.output(node, i, params=params) for i in range(len(node.outputs))]
    emit_split(context, shuffled, targets, axis=3)


def _emit_shuffle(context: LoweringContext, source: int, target: int, groups: int) -> None:
    shape = context.graph.tensors[source].shape
    if len(shape) != layout.HELD_RANK or shape[3] % groups:
        raise FormError(f"a shuffle of shape {shape} in {groups} groups", "use equal groups")
    n, h, w, channels = shape
    grouped = context.reshaped(source, (n * h * w, groups, channels // groups))
    swapped = context.like(source, "swapped", (n * h * w, channels // groups, groups))
    context.transpose(grouped, swapped, layout.SWAP_LAST_TWO_OF_3)
    context.reshape(swapped, target)
