"""Channel shuffles: ``concat(interleave=True)``, which takes one channel of each operand in turn.

A shuffle with g groups gives y[:, i g + j] = x[:, j C / g + i]: the g runs of C / g channels,
interleaved. So it needs no reshape and no transpose. Where x is itself the concatenation of g
operands of equal size, they are interleaved as they are; otherwise x is split into its runs first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deploykit.graph.node_fields import FormError, needed_value, shape_of
from deploykit.graph.ops import DOMAIN
from deploykit.graph.reading import is_op, producer_of, read_int
from deploykit_coreml.lower_shape import split_into
from deploykit_coreml.lowering_context import TABLE, LoweringContext

if TYPE_CHECKING:
    import onnx_ir as ir

_CHANNELS = 1


@TABLE.register("ChannelShuffle", domain=DOMAIN)
def lower_channel_shuffle(node: ir.Node, context: LoweringContext) -> None:
    """concat(interleave=True) of the groups."""
    groups = _groups(node, context.shape(node)[_CHANNELS])
    operands = _concatenated(node, context, groups)
    if operands is None:
        operands = _runs(context, context.read(node, 0), groups, context.output_name(node))
    context.result(node, "concat", values=operands, axis=_CHANNELS, interleave=True)


@TABLE.register("ConcatShuffleSplit", domain=DOMAIN)
def lower_concat_shuffle_split(node: ir.Node, context: LoweringContext) -> None:
    """concat(interleave=True) and split."""
    operands = [context.read(node, index) for index in (0, 1)]
    channels = [context.shape(node, index)[_CHANNELS] for index in (0, 1)]
    groups = _groups(node, sum(channels))
    name = f"{node.outputs[0].name}_shuffled"
    if groups != 2 or channels[0] != channels[1]:
        joined = context.emit(
            "concat", f"{name}_from", values=operands, axis=_CHANNELS, interleave=False
        )
        operands = _runs(context, joined, groups, name)
    shuffled = context.emit("concat", name, values=operands, axis=_CHANNELS, interleave=True)
    split_into(node, context, shuffled, _CHANNELS, [sum(channels) // 2] * 2)


def _groups(node: ir.Node, channels: int) -> int:
    groups = read_int(node, "groups", 1)
    if groups < 1 or channels % groups:
        raise FormError(f"{groups} groups of {channels} channels")
    return groups


def _runs(context: LoweringContext, variable: Any, groups: int, name: str) -> list[Any]:
    if groups == 1:
        return [variable]
    parts = context.emit("split", f"{name}_runs", x=variable, num_splits=groups, axis=_CHANNELS)
    for index, part in enumerate(parts):
        part.name = context.unique(f"{name}_run{index}")
    return list(parts)


def _concatenated(node: ir.Node, context: LoweringContext, groups: int) -> list[Any] | None:
    """The operands of a concatenation that is nothing but the groups; None if there is none."""
    concat = producer_of(needed_value(node, 0), "Concat")
    if concat is None or len(concat.inputs) != groups or not _is_plain(concat, context):
        return None
    return [context.read(concat, index) for index in range(groups)]


def _is_plain(concat: ir.Node, context: LoweringContext) -> bool:
    """Whether operands of one size are joined along the channels and nothing is rounded by it."""
    if read_int(concat, "axis", 0) != _CHANNELS:
        return False
    values = [v for v in (*concat.inputs, concat.outputs[0]) if v is not None]
    sizes = {shape_of(v)[_CHANNELS] for v in concat.inputs if v is not None}
    return len(sizes) == 1 and len({context.params.get(v.name or "") for v in values}) == 1


def is_absorbed(node: ir.Node, context: LoweringContext) -> bool:
    """Whether a node is a concatenation that only shuffles read, which take its operands."""
    if not is_op(node, "Concat") or node.outputs[0].is_graph_output():
        return False
    readers = [use.node for use in node.outputs[0].uses()]
    return (
        bool(readers)
        and all(
            is_op(reader, "ChannelShuffle", domain=DOMAIN)
            and read_int(reader, "groups", 1) == len(node.inputs)
            for reader in readers
        )
        and _is_plain(node, context)
    )
