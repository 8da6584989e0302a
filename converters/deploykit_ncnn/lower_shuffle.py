"""Channel shuffles: ShuffleChannel, which computes y[i g + j] = x[j C / g + i] for g groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploykit.graph.node_fields import FormError
from deploykit.graph.ops import DOMAIN
from deploykit.graph.reading import read_int
from deploykit_ncnn.lower_shape import split_blob
from deploykit_ncnn.lowering_context import TABLE, LoweringContext

if TYPE_CHECKING:
    import onnx_ir as ir


@TABLE.register("ChannelShuffle", domain=DOMAIN)
def lower_channel_shuffle(node: ir.Node, context: LoweringContext) -> None:
    """ShuffleChannel."""
    groups = _groups(node, context.shape(node)[0])
    context.result(node, "ShuffleChannel", [context.read(node, 0)], {0: groups})


@TABLE.register("ConcatShuffleSplit", domain=DOMAIN)
def lower_concat_shuffle_split(node: ir.Node, context: LoweringContext) -> None:
    """Concat, ShuffleChannel and Slice."""
    channels = sum(context.shape(node, index)[0] for index in (0, 1))
    groups = _groups(node, channels)
    title, name = context.title(node), context.output_name(node)
    blobs = [context.read(node, index) for index in (0, 1)]
    joined = context.emit("Concat", f"{title}.concat", blobs, [f"{name}_joined"], {0: 0})
    shuffled = context.emit(
        "ShuffleChannel", f"{title}.shuffle", joined, [f"{name}_shuffled"], {0: groups}
    )
    halves = [v.name or "half" for v in node.outputs]
    parts = split_blob(context, f"{title}.slice", shuffled[0], halves, [channels // 2] * 2, 0)
    for value, blob in zip(node.outputs, parts, strict=True):
        context.bind(value, blob)


def _groups(node: ir.Node, channels: int) -> int:
    groups = read_int(node, "groups", 1)
    if groups < 1 or channels % groups:
        raise FormError(f"{groups} groups of {channels} channels")
    return groups
