"""Values that are made in parts along the channels, and what is done on the parts.

What works on every channel alone can be done before the channels are joined:

    f(concat(a, b)) = concat(f(a), f(b))                f: activation, depthwise, pool, mean
    concat(a, b) + c = concat(a + c[:, :n], b + c[:, n:])    n: channels of a
    f(shuffle(concat(a, b))) = shuffle(concat(f'(a), f'(b)))    f' with its channels put back
    concat(a, b)[:, :n] = a

So a Concat that is only there to be cut again need not exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from deploykit.graph.editing import GraphEditor
from deploykit.graph.ops import CLAMPS, DOMAIN, POOLS
from deploykit.graph.reading import (
    constant_array,
    constant_ints,
    input_at,
    is_constant,
    is_op,
    known_shape,
    producer_of,
    read_int,
    static_shape,
)
from deploykit.tensors import Array

if TYPE_CHECKING:
    import onnx_ir as ir

_CHANNELS = 1


@dataclass
class ChannelParts:
    """Which values of a graph are made in parts; edits the graph as it learns.

    Attributes:
        editor: Of the graph.
        parts: Value → the values whose concatenation along the channels it is.
    """

    editor: GraphEditor
    parts: dict[ir.Value, tuple[ir.Value, ...]] = field(default_factory=dict)
    _taken: dict[tuple[ir.Value, int, int], ir.Value] = field(default_factory=dict)

    def join(self, parts: Sequence[ir.Value], output: ir.Value) -> None:
        """A Concat of the parts takes the place of a value; from here on it is known in parts."""
        maker = output.producer()
        assert maker is not None
        joined = self.editor.node(
            "Concat", parts, known_shape(output), like=maker, attributes={"axis": _CHANNELS}
        )
        self.editor.take_over(output, joined)
        self.parts[joined] = tuple(parts)
        self.editor.remove_if_unread(maker)

    def take(self, value: ir.Value, start: int, stop: int, before: ir.Node) -> ir.Value:
        """Channels ``start`` up to ``stop`` of a value: parts of it where they will do.

        Args:
            value: A value with channels.
            start: First channel.
            stop: The one behind the last.
            before: The node that reads them.
        """
        key = (value, start, stop)
        if key not in self._taken:
            pieces, begin = [], 0
            for part in self.parts.get(value, (value,)):
                end = begin + known_shape(part)[_CHANNELS]
                low, high = max(start, begin), min(stop, end)
                if low < high:
                    pieces.append(self._slice(part, low - begin, high - begin, before))
                begin = end
            self._taken[key] = pieces[0] if len(pieces) == 1 else self._concat(pieces, key, before)
        return self._taken[key]

    def carry(self, node: ir.Node) -> bool:
        """Do a node's work on the parts of what it reads; False where that cannot be."""
        source = input_at(node, 0)
        if source is None:
            return False
        if is_op(node, "Concat") and read_int(node, "axis", 0) == _CHANNELS:
            operands = [v for v in node.inputs if v is not None]
            if any(v in self.parts for v in operands):
                found = (part for v in operands for part in self.parts.get(v, (v,)))
                self.parts[node.outputs[0]] = tuple(found)
            return False
        if is_op(node, "Add"):
            return self._carry_addition(node)
        if not _works_on_channels_alone(node, source):
            return False
        if source in self.parts:
            self.join(self._on_parts(node, self.parts[source], None), node.outputs[0])
            return True
        return self._carry_before_shuffle(node, source)

    def _carry_before_shuffle(self, node: ir.Node, source: ir.Value) -> bool:
        shuffle = producer_of(source, "ChannelShuffle", domain=DOMAIN)
        inner = shuffle.inputs[0] if shuffle is not None else None
        if shuffle is None or inner not in self.parts or inner is None:
            return False
        groups = read_int(shuffle, "groups", 1)
        channels = known_shape(inner)[_CHANNELS]
        # Where each channel of what is shuffled goes: i * (C / g) + j to j * g + i.
        places = np.arange(channels).reshape(channels // groups, groups).T.reshape(-1)
        parts = self._on_parts(node, self.parts[inner], places)
        shape, output = known_shape(node.outputs[0]), node.outputs[0]
        joined = self.editor.node("Concat", parts, shape, like=node, attributes={"axis": _CHANNELS})
        shuffled = self.editor.node(
            "ChannelShuffle",
            [joined],
            shape,
            like=node,
            domain=DOMAIN,
            attributes={"groups": groups},
        )
        self.editor.take_over(output, shuffled)
        self.editor.remove_if_unread(node, shuffle)
        return True

    def _carry_addition(self, node: ir.Node) -> bool:
        output = node.outputs[0]
        operands = [v for v in node.inputs if v is not None]
        if any(static_shape(v) != static_shape(output) for v in operands):
            return False
        known = [self.parts[v] for v in operands if v in self.parts]
        if not known:
            return False
        ends = [0]
        for part in min(known, key=len):
            ends.append(ends[-1] + known_shape(part)[_CHANNELS])
        sums = []
        for start, stop in pairwise(ends):
            pair = [self.take(v, start, stop, node) for v in operands]
            sums.append(self._node(node, pair, stop - start, start))
        self.join(sums, output)
        return True

    def _on_parts(
        self, node: ir.Node, parts: Sequence[ir.Value], places: Array | None
    ) -> list[ir.Value]:
        made, start = [], 0
        for part in parts:
            size = known_shape(part)[_CHANNELS]
            which = np.arange(start, start + size)
            inputs: list[ir.Value | None] = [part]
            for value in node.inputs[1:]:
                rows = which if places is None else places[which]
                array = constant_array(value) if is_op(node, "Conv") else None
                if value is not None and array is not None:
                    inputs.append(self.editor.constant(f"{value.name}.rows", array[rows]))
                else:
                    inputs.append(value)
            made.append(self._node(node, inputs, size, start))
            start += size
        return made

    def _node(
        self, node: ir.Node, inputs: Sequence[ir.Value | None], size: int, start: int
    ) -> ir.Value:
        shape = list(known_shape(node.outputs[0]))
        shape[_CHANNELS] = size
        attributes = {key: attribute.value for key, attribute in node.attributes.items()}
        if is_op(node, "Conv"):
            attributes["group"] = size
        return self.editor.node(
            node.op_type,
            inputs,
            shape,
            like=node,
            name=f"{node.outputs[0].name}.channels_{start}_{start + size}",
            attributes=attributes,
        )

    def _slice(self, part: ir.Value, start: int, stop: int, before: ir.Node) -> ir.Value:
        shape = list(known_shape(part))
        if (start, stop) == (0, shape[_CHANNELS]):
            return part
        shape[_CHANNELS] = stop - start
        stem = f"{part.name}.channels_{start}_{stop}"
        bounds = {"starts": start, "ends": stop, "axes": _CHANNELS, "steps": 1}
        numbers = [self.editor.ints(f"{stem}.{k}", [n]) for k, n in bounds.items()]
        return self.editor.node("Slice", [part, *numbers], shape, like=before, name=stem)

    def _concat(
        self, pieces: Sequence[ir.Value], key: tuple[ir.Value, int, int], before: ir.Node
    ) -> ir.Value:
        value, start, stop = key
        shape = list(known_shape(value))
        shape[_CHANNELS] = stop - start
        return self.editor.node(
            "Concat",
            pieces,
            shape,
            like=before,
            name=f"{value.name}.channels_{start}_{stop}",
            attributes={"axis": _CHANNELS},
        )


def _works_on_channels_alone(node: ir.Node, source: ir.Value) -> bool:
    if is_op(node, "Conv"):
        channels = known_shape(source)[_CHANNELS]
        sizes = (read_int(node, "group", 1), known_shape(node.outputs[0])[_CHANNELS])
        return sizes == (channels, channels) and all(is_constant(v) for v in node.inputs[1:] if v)
    if is_op(node, "ReduceMean"):
        axes = constant_ints(input_at(node, 1))
        return axes is not None and _CHANNELS not in axes and min(axes) > 0
    return is_op(node, *CLAMPS, *POOLS)
