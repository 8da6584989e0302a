"""Which channels of which values must be scaled alike for the network to stay what it is.

If channel ``c`` of a value is multiplied by a factor, what reads it must multiply along, until
layers with weights take the factor up. Channels that are tied in this way form a class.

1.  Conv and Gemm with constant weights: the rows of the weights take up factors of outputs, the
    columns those of inputs. Nothing is tied, through depthwise layers neither.
2.  Relu, LeakyRelu, PRelu, pools, means over the map, Pad with zeros, Resize, a Mul by a positive
    constant or by a gate (one number a channel): channel by channel.
3.  Clip(0, b): likewise, and the class must not grow beyond the bound.
4.  Add of two values of one shape: all three, channel by channel.
5.  Concat, Split and Slice of channels, ChannelShuffle, ConcatShuffleSplit, Reshape to a vector or
    back: each channel with where it goes.
6.  Everything else, gates, and the ends of the graph: not scaled at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from deploykit.graph.read_qdq import data_inputs, is_float
from deploykit.graph.reading import constant_array, is_constant, read_int, static_shape
from deploykit.tensors import Array
from deploykit_quantize.weighted_layer import weighted_layer

if TYPE_CHECKING:
    import onnx_ir as ir

_HOMOGENEOUS = frozenset(
    {"Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Resize"}
)


@dataclass
class ChannelClasses:
    """A union-find over the channels of all values.

    Attributes:
        first: Value → number of its first channel.
        sizes: Value → number of channels.
        fixed: Numbers of channels that are not scaled.
        bounds: Pairs of a value that a Clip makes and its upper bound.
    """

    first: dict[ir.Value, int] = field(default_factory=dict)
    sizes: dict[ir.Value, int] = field(default_factory=dict)
    fixed: list[Array] = field(default_factory=list)
    bounds: list[tuple[ir.Value, float]] = field(default_factory=list)
    _parents: Array = field(default_factory=lambda: np.zeros(0, np.int64))
    _ties: list[tuple[Array, Array]] = field(default_factory=list)

    def channels(self, value: ir.Value) -> Array:
        """Numbers of a value's channels."""
        return np.arange(self.first[value], self.first[value] + self.sizes[value])

    def labels(self) -> Array:
        """Number of a channel → number of its class; 0 is the class of what is not scaled."""
        return self._parents

    def tie(self, a: Array, b: Array) -> None:
        """Channels ``a[i]`` and ``b[i]`` are scaled alike."""
        self._ties.append((a, b))

    def fix(self, *values: ir.Value) -> None:
        """The channels of these values are not scaled."""
        self.fixed += [self.channels(v) for v in values if v in self.first]

    def close(self) -> None:
        """Work out the classes: labels spread along ties until nothing changes."""
        count = sum(self.sizes.values())
        labels = np.arange(1, count + 1)
        for channels in self.fixed:
            labels[channels] = 0
        if self._ties:
            a, b = (np.concatenate(side) for side in zip(*self._ties, strict=True))
            while True:
                before = labels.copy()
                low = np.minimum(labels[a], labels[b])
                np.minimum.at(labels, a, low)
                np.minimum.at(labels, b, low)
                # A label is the number of a channel (plus one): follow it to that one's label.
                labels = np.where(labels > 0, labels[np.maximum(labels, 1) - 1], 0)
                if np.array_equal(before, labels):
                    break
        self._parents = labels


def find_channel_classes(graph: ir.Graph) -> ChannelClasses:
    """The classes of a fused graph with static shapes."""
    classes, count = ChannelClasses(), 0
    for value in [*graph.inputs, *(v for node in graph for v in node.outputs)]:
        shape = static_shape(value)
        if shape is None or len(shape) not in (2, 4) or shape[0] != 1 or not is_float(value):
            continue
        classes.first[value], classes.sizes[value] = count, shape[1]
        count += shape[1]
    for node in graph:
        reason = _tie_node(classes, node)
        if not reason:
            classes.fix(*data_inputs(node), *node.outputs)
    classes.fix(*graph.inputs, *graph.outputs)
    classes.close()
    return classes


def _tie_node(classes: ChannelClasses, node: ir.Node) -> bool:
    """Tie what a node ties; False if it can scale nothing."""
    inputs, outputs = data_inputs(node), list(node.outputs)
    if not inputs or any(v not in classes.first for v in (*inputs, *outputs)):
        return False
    source, made = inputs[0], outputs[0]
    same = classes.sizes[source] == classes.sizes[made]
    kind = node.op_type
    if node.domain == "deploykit":
        return _tie_shuffle(classes, node, inputs, outputs)
    if kind in ("Conv", "Gemm"):
        return _takes_factors(node)
    if kind in _HOMOGENEOUS or (kind == "PRelu" and len(inputs) == 1):
        return same and _tie_channels(classes, source, [made])
    if kind == "Pad":
        return same and _pads_zeros(node) and _tie_channels(classes, source, [made])
    if kind == "ReduceMean":
        axes = constant_array(node.inputs[1]) if len(node.inputs) > 1 else None
        spatial = axes is not None and 1 not in axes and 0 not in axes
        return spatial and same and _tie_channels(classes, source, [made])
    if kind == "Clip":
        low, high = (constant_array(v) for v in node.inputs[1:3])
        if low is None or high is None or float(low) != 0.0:
            return False
        classes.bounds.append((made, float(high)))
        return _tie_channels(classes, source, [made])
    if kind == "Add":
        alike = len(inputs) == 2 and static_shape(inputs[0]) == static_shape(inputs[1])
        return alike and _tie_channels(classes, made, inputs)
    if kind == "Mul":
        return _tie_product(classes, node, inputs, made)
    return _tie_moves(classes, node, inputs, outputs)


def _tie_channels(classes: ChannelClasses, value: ir.Value, others: Iterable[ir.Value]) -> bool:
    for other in others:
        classes.tie(classes.channels(value), classes.channels(other))
    return True


def _takes_factors(node: ir.Node) -> bool:
    layer = weighted_layer(node)
    if layer is None or any(v is not None and not is_constant(v) for v in node.inputs[1:]):
        return False
    if node.op_type == "Gemm":
        return read_int(node, "transB", 0) == 1 and not read_int(node, "transA", 0)
    return layer.weights.ndim == 4


def _pads_zeros(node: ir.Node) -> bool:
    pads = constant_array(node.inputs[1])
    value = constant_array(node.inputs[2]) if len(node.inputs) > 2 else None
    if pads is None or len(pads) != 8 or pads[[0, 1, 4, 5]].any():
        return False
    mode = node.attributes.get_string("mode", "constant")
    return mode != "constant" or value is None or not np.any(value)


def _tie_product(
    classes: ChannelClasses, node: ir.Node, inputs: list[ir.Value], made: ir.Value
) -> bool:
    shape = static_shape(made)
    if len(inputs) == 1:
        constant = next((constant_array(v) for v in node.inputs if v not in inputs), None)
        fits = constant is not None and bool((constant > 0).all())
        return fits and static_shape(inputs[0]) == shape and _tie_channels(classes, made, inputs)
    maps = [v for v in inputs if static_shape(v) == shape]
    if len(maps) != 1 or shape is None or len(shape) != 4:
        return False
    classes.fix(*(v for v in inputs if v is not maps[0]))
    return _tie_channels(classes, made, maps)


def _tie_moves(
    classes: ChannelClasses, node: ir.Node, inputs: list[ir.Value], outputs: list[ir.Value]
) -> bool:
    kind = node.op_type
    if kind == "Concat" and read_int(node, "axis", -1) == 1 and len(inputs) == len(node.inputs):
        joined = np.concatenate([classes.channels(v) for v in inputs])
        classes.tie(joined, classes.channels(outputs[0]))
        return True
    if kind == "Split" and read_int(node, "axis", 0) == 1:
        joined = np.concatenate([classes.channels(v) for v in outputs])
        classes.tie(classes.channels(inputs[0]), joined)
        return True
    if kind == "Slice":
        starts, ends, axes, *steps = (constant_array(v) for v in node.inputs[1:])
        if starts is None or ends is None or axes is None or any(s is None for s in steps):
            return False
        chosen = classes.channels(inputs[0])
        stride = steps[0] if steps and steps[0] is not None else np.ones_like(starts)
        for start, end, axis, step in zip(starts, ends, axes, stride, strict=True):
            if axis == 0:
                return False
            if axis == 1:
                chosen = chosen[int(start) : int(end) : int(step)]
        classes.tie(chosen, classes.channels(outputs[0]))
        return len(chosen) == classes.sizes[outputs[0]]
    if kind == "Reshape":
        return _tie_reshape(classes, inputs[0], outputs[0])
    return False


def _tie_reshape(classes: ChannelClasses, source: ir.Value, made: ir.Value) -> bool:
    """A map to a vector, (1, C, H, W) → (1, C H W), or a vector to a map of one pixel."""
    before, after = classes.sizes[source], classes.sizes[made]
    shape = static_shape(made) or ()
    if after % before or any(d != 1 for d in shape[2:]):
        return False
    classes.tie(np.repeat(classes.channels(source), after // before), classes.channels(made))
    return True


def _tie_shuffle(
    classes: ChannelClasses, node: ir.Node, inputs: list[ir.Value], outputs: list[ir.Value]
) -> bool:
    if node.op_type not in ("ChannelShuffle", "ConcatShuffleSplit"):
        return False
    joined = np.concatenate([classes.channels(v) for v in inputs])
    groups = read_int(node, "groups", 1)
    shuffled = joined.reshape(groups, -1).T.reshape(-1)
    classes.tie(shuffled, np.concatenate([classes.channels(v) for v in outputs]))
    return True
