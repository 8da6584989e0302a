"""A layer with weights as the matrix product that it is: y = W x, group by group.

Of a Conv, ``x`` is one window of the padded input, (C / groups) kH kW numbers, and ``W`` has one
row an output channel. A Gemm or a MatMul with a constant has one group and one window a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deploykit.graph.ops import WEIGHTED_OPS
from deploykit.graph.reading import constant_array, is_constant, is_op, read_int, read_ints
from deploykit.tensors import Array, FloatArray, QuantParams

if TYPE_CHECKING:
    import onnx_ir as ir

#: Of one sample at most so many windows are looked at.
_MOST_OF_A_SAMPLE = 1024
#: Of all samples together: so many a weight, and at least so many.
_WINDOWS_A_WEIGHT = 32
_FEWEST_WINDOWS = 16384
#: Part of a period by which the windows of the next sample are moved; no few samples see the same.
_GOLDEN_RATIO = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class WeightedLayer:
    """A Conv, ConvTranspose, Gemm or MatMul with constant weights.

    Attributes:
        node: The node; input 0 is computed, input 1 the constant.
        weights: float32, in ONNX's layout.
    """

    node: ir.Node
    weights: FloatArray

    @property
    def name(self) -> str:
        """Name of the value that it makes."""
        return self.node.outputs[0].name or ""

    @property
    def source(self) -> str:
        """Name of the value that it reads."""
        value = self.node.inputs[0]
        return (value.name or "") if value is not None else ""

    @property
    def groups(self) -> int:
        """Number of groups."""
        return read_int(self.node, "group", 1) if self.node.op_type == "Conv" else 1

    @property
    def is_depthwise(self) -> bool:
        """Whether each group of a Conv reads one channel."""
        return self.node.op_type == "Conv" and self.groups > 1 and self.weights.shape[1] == 1

    @property
    def is_spatial(self) -> bool:
        """Whether it is a Conv whose kernel has more than one tap."""
        return self.node.op_type == "Conv" and int(np.prod(self.weights.shape[2:])) > 1

    @property
    def inputs_per_unit(self) -> int:
        """Weights of one output channel."""
        return self.weights.size // self.units

    @property
    def units(self) -> int:
        """Number of output channels."""
        return int(self.weights.shape[1 if self._is_transposed else 0])

    def windows_of_a_sample(self, samples: int) -> int:
        """How many windows of each of so many samples tell its second moments well enough."""
        wanted = max(_FEWEST_WINDOWS, _WINDOWS_A_WEIGHT * self.inputs_per_unit)
        return min(-(-wanted // samples), _MOST_OF_A_SAMPLE)

    @property
    def window_key(self) -> tuple[object, ...]:
        """The same for layers that read the same windows of the same value."""
        shape = self.weights.shape[2:] if self.node.op_type == "Conv" else ()
        settings = tuple(
            (name, tuple(self.node.attributes[name].as_ints()))
            for name in ("strides", "pads", "dilations")
            if name in self.node.attributes
        )
        return (self.node.op_type, self.source, self.groups, shape, settings)

    @property
    def why_no_rows(self) -> str:
        """Why it is no product of a matrix and windows; empty if it is."""
        if self.node.op_type == "ConvTranspose":
            return "a transposed convolution has no windows of its input"
        return "" if self.weights.ndim >= 2 else "its weights are a vector"

    @property
    def _is_transposed(self) -> bool:
        if self.node.op_type == "Gemm":
            return not read_int(self.node, "transB", 0)
        return is_op(self.node, "MatMul", "ConvTranspose")

    def rows(self, weights: Array) -> Array:
        """Anything of the weights' shape as (groups, rows a group, weights a row)."""
        matrix = weights.T if self._is_transposed else weights
        return matrix.reshape(self.groups, matrix.shape[0] // self.groups, -1)

    def from_rows(self, rows: Array) -> Array:
        """The inverse of `rows`."""
        if self._is_transposed:
            return np.ascontiguousarray(rows.reshape(self.units, -1).T)
        return rows.reshape(self.weights.shape)

    def row_scales(self, params: QuantParams) -> Array:
        """One scale a row, float64 (groups, rows a group)."""
        scales = np.asarray(params.scale, np.float32).astype(np.float64)
        return np.broadcast_to(scales, (self.units,)).reshape(self.groups, -1)

    def windows(
        self, value: FloatArray, most: int = _MOST_OF_A_SAMPLE, number: int = 0
    ) -> FloatArray:
        """What the layer multiplies of one sample, (groups, weights a row, windows).

        Args:
            value: What it reads.
            most: Of a map with more windows so many are taken, at equal distances.
            number: Of the sample; each sample shows other places of the map.
        """
        if self.node.op_type == "Gemm":
            transposed = read_int(self.node, "transA", 0)
            return (value if transposed else value.T)[np.newaxis]
        if self.node.op_type == "MatMul":
            return value.reshape(-1, value.shape[-1]).T[np.newaxis]
        return self._convolution_windows(value[0], most, number)

    def _convolution_windows(self, sample: FloatArray, most: int, number: int) -> FloatArray:
        kernel = self.weights.shape[2:]
        strides = read_ints(self.node, "strides", (1,) * len(kernel))
        dilations = read_ints(self.node, "dilations", (1,) * len(kernel))
        pads = read_ints(self.node, "pads", (0,) * (2 * len(kernel)))
        if len(kernel) == 1:
            sample = sample[:, np.newaxis]
            kernel, strides, dilations = (1, *kernel), (1, *strides), (1, *dilations)
            pads = (0, pads[0], 0, pads[1])
        top, left, bottom, right = pads
        padded = np.pad(sample, ((0, 0), (top, bottom), (left, right))) if any(pads) else sample
        reach = tuple((k - 1) * d for k, d in zip(kernel, dilations, strict=True))
        rows = np.arange(0, padded.shape[1] - reach[0], strides[0])
        columns = np.arange(0, padded.shape[2] - reach[1], strides[1])
        total = len(rows) * len(columns)
        taken = np.arange(total)
        if total > most:
            start = number * _GOLDEN_RATIO % 1
            taken = ((np.arange(most) + start) * total / most).astype(np.int64)
        y, x = rows[taken // len(columns)], columns[taken % len(columns)]
        taps = [
            padded[:, y + i * dilations[0], x + j * dilations[1]]
            for i in range(kernel[0])
            for j in range(kernel[1])
        ]
        stacked = np.stack(taps, axis=1)  # channels, taps, windows
        return stacked.reshape(self.groups, -1, stacked.shape[-1])


def weighted_layer(node: ir.Node) -> WeightedLayer | None:
    """The layer that a node is; None for one without constant weights or computed data."""
    if node.domain or node.op_type not in WEIGHTED_OPS:
        return None
    source, weights = node.inputs[0], constant_array(node.inputs[1])
    if source is None or weights is None or is_constant(source):
        return None
    return WeightedLayer(node, weights)
