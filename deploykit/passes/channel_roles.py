"""What each op does to the order of the channels (axis 1) of the values that it reads and makes.

1.  It *moves* whole channels: Concat, Split and Slice along the channels, ChannelShuffle,
    ConcatShuffleSplit, a Gather of channels.
2.  It *ties* values: it works on every channel alone, so that what it makes is in the order of
    what it reads: activations, pooling, reductions over pixels, arithmetic, depthwise convolution.
    Constants with one number a channel follow.
3.  It *absorbs* an order: the rows and columns of its weights follow, whatever order its input is
    in and its output is wanted in: Conv, Gemm. Of a grouped Conv only orders that stay within
    each group.
4.  It *pins* values to the source's order: everything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from deploykit.graph.op_facts import Channels, facts_of
from deploykit.graph.ops import DOMAIN
from deploykit.graph.reading import (
    constant_array,
    constant_ints,
    input_at,
    is_constant,
    is_op,
    read_int,
    static_shape,
)

if TYPE_CHECKING:
    import onnx_ir as ir

#: One channel of a value.
Channel = tuple["ir.Value", int]


@dataclass(frozen=True)
class ChannelRole:
    """One node's effect on the order of channels; a value in none of these is pinned.

    Attributes:
        moved: For each output, where its channels come from; empty if the node moves none.
        tied: Values that are held in one order.
        blocks: Value → size of the runs of channels within which the node absorbs any order.
    """

    moved: tuple[tuple[Channel, ...], ...] = ()
    tied: tuple[ir.Value, ...] = ()
    blocks: Mapping[ir.Value, int] = field(default_factory=dict)


def count_channels(value: ir.Value | None) -> int:
    """Length of axis 1 of a feature map (rank 4) or a vector a sample (rank 2); otherwise 0."""
    shape = static_shape(value)
    return shape[1] if shape is not None and len(shape) in (2, 4) else 0


def find_role(node: ir.Node) -> ChannelRole:
    """The role of a node of the canonical set."""
    first, op = input_at(node, 0), facts_of(node)
    if op is None or first is None or is_constant(first):
        return ChannelRole()
    if not all(map(count_channels, (first, *node.outputs))):
        return ChannelRole()
    if op.channels is Channels.ABSORBS:
        return _linear_role(node, first) if is_op(node, "Gemm") else _convolution_role(node, first)
    if op.channels is Channels.BROADCASTS:
        return _binary_role(node)
    if _ties_first(node, op.channels, first):
        return ChannelRole(tied=(first, node.outputs[0]))
    moved = _moved_channels(node) if op.channels is Channels.MOVES else ()
    return ChannelRole(moved=moved) if moved else ChannelRole()


def _convolution_role(node: ir.Node, source: ir.Value) -> ChannelRole:
    weights = static_shape(input_at(node, 1))
    bias = input_at(node, 2)
    if weights is None or not is_constant(input_at(node, 1)):
        return ChannelRole()
    if bias is not None and not is_constant(bias):
        return ChannelRole()
    group, made, read = read_int(node, "group", 1), weights[0], count_channels(source)
    if group == read == made and group > 1:
        return ChannelRole(tied=(source, node.outputs[0]))
    return ChannelRole(blocks={source: read // group, node.outputs[0]: made // group})


def _linear_role(node: ir.Node, source: ir.Value) -> ChannelRole:
    weights, bias = input_at(node, 1), input_at(node, 2)
    shape = static_shape(weights)
    if shape is None or not is_constant(weights) or read_int(node, "transB", 0) != 1:
        return ChannelRole()
    if bias is not None and (not is_constant(bias) or static_shape(bias) != shape[:1]):
        return ChannelRole()
    return ChannelRole(blocks={source: shape[1], node.outputs[0]: shape[0]})


def _binary_role(node: ir.Node) -> ChannelRole:
    output = node.outputs[0]
    channels, rank = count_channels(output), len(static_shape(output) or ())
    tied = [output]
    for value in node.inputs:
        shape = static_shape(value)
        if value is None or shape is None:
            return ChannelRole()
        if is_constant(value):
            continue  # `absorb_channel_permutations` moves its channels, if it has any
        if len(shape) != rank:
            return ChannelRole()
        if shape[1] == channels:
            tied.append(value)
        # A value with one channel is the same for all, in any order.
    return ChannelRole(tied=tuple(tied))


def _ties_first(node: ir.Node, channels: Channels, source: ir.Value) -> bool:
    before, after = static_shape(source), static_shape(node.outputs[0])
    if before is None or after is None:
        return False
    if channels is Channels.TIES:
        return all(v is None or v is source or is_constant(v) for v in node.inputs)
    if channels is Channels.REDUCES:
        axes = constant_ints(input_at(node, 1))
        return axes is not None and set(axes) <= {2, 3} and len(before) == 4
    if channels is not Channels.KEEPS_OUTER or before[:2] != after[:2]:
        return False
    if is_op(node, "Pad"):
        pads = constant_ints(input_at(node, 1))
        return pads is not None and len(pads) == 2 * len(before)
    return not is_op(node, "Reshape") or {*before[2:], *after[2:]} <= {1}


def _moved_channels(node: ir.Node) -> tuple[tuple[Channel, ...], ...]:
    sources = [v for v in node.inputs if v is not None]
    if is_op(node, "Concat", "Split", "Gather") and read_int(node, "axis", 0) != 1:
        return ()
    if is_op(node, "Concat"):
        return (_concatenated(sources),) if _all_computed(sources) else ()
    if count_channels(sources[0]) * len(sources) % read_int(node, "groups", 1):
        return ()
    if is_op(node, "ChannelShuffle", domain=DOMAIN):
        return (_shuffled(_concatenated(sources), read_int(node, "groups", 1)),)
    if is_op(node, "ConcatShuffleSplit", domain=DOMAIN) and _all_computed(sources):
        whole = _shuffled(_concatenated(sources), read_int(node, "groups", 1))
        return whole[: len(whole) // 2], whole[len(whole) // 2 :]
    whole = _concatenated(sources[:1])
    if is_op(node, "Split"):
        ends = [0]
        for output in node.outputs:
            ends.append(ends[-1] + count_channels(output))
        return tuple(whole[a:b] for a, b in pairwise(ends))
    if is_op(node, "Slice"):
        starts, ends_, axes, steps = (constant_ints(input_at(node, i)) for i in range(1, 5))
        if starts and ends_ and axes == (1,) and steps and steps[0] > 0:
            return (whole[starts[0] : ends_[0] : steps[0]],)
    if is_op(node, "Gather"):
        indices = constant_array(input_at(node, 1))
        if indices is not None and indices.ndim == 1:
            return (tuple(whole[int(i)] for i in indices),)
    return ()


def _all_computed(values: list[ir.Value]) -> bool:
    return all(count_channels(v) and not is_constant(v) for v in values)


def _concatenated(values: list[ir.Value]) -> tuple[Channel, ...]:
    return tuple((v, i) for v in values for i in range(count_channels(v)))


def _shuffled(channels: tuple[Channel, ...], groups: int) -> tuple[Channel, ...]:
    size = len(channels) // groups
    return tuple(channels[g * size + i] for i in range(size) for g in range(groups))
