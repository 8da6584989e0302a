"""Biases make up for the mean error of each layer (Nagel et al. 2019, sec. 4.2; live and robust).

Layer by layer, with what the quantized layers before really give, the mean of float minus
quantized output is added to the bias. Means of one sample, over the positions of a channel where
the output is between the bounds of the activation behind it in either network; of those the
median over samples, which no single sample moves. A channel with fewer than 32 such positions, or
positions in fewer than 8 samples, keeps its bias.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from deploykit.calibration.data import CalibrationData
from deploykit.graph.editing import GraphEditor
from deploykit.graph.read_qdq import bias_index, carries_activation, is_dequantize, read_params
from deploykit.graph.reading import constant_array, input_at
from deploykit.model import Model, Stage
from deploykit.passes.base import Findings
from deploykit.tensors import Array, QuantParams
from deploykit_quantize.layer_inputs import batch_of
from deploykit_quantize.round.base import Need
from deploykit_quantize.segments import SegmentedRun

if TYPE_CHECKING:
    import onnx_ir as ir

_FEWEST_POSITIONS = 32
_FEWEST_SAMPLES = 8


@dataclass(frozen=True)
class CorrectBias:
    """Live bias correction.

    Attributes:
        samples: How many calibration samples serve, at equal distances.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.LAYER_INPUTS})

    samples: int = 32

    def apply(self, prepared: Model, quantized: Model, data: CalibrationData) -> Model:
        """The quantized stage with other biases.

        Args:
            prepared: The prepared stage.
            quantized: The quantized stage that was made of it; it is not changed.
            data: The calibration set.
        """
        findings = Findings("correct_bias")
        count = min(self.samples, data.count)
        spread = [(2 * i + 1) * data.count // (2 * count) for i in range(count)]
        taken = list(data.chosen(spread, "").batches(batch_of(prepared.graph)))
        clone = quantized.graph.clone()
        ours, theirs = SegmentedRun(clone, taken), SegmentedRun(prepared.graph, taken)
        editor = GraphEditor(clone.graph)
        places = zip(_weighted(clone.graph), _weighted(prepared.graph.graph), strict=True)
        for (at, node), (there, plain) in list(places):
            bias = _Bias.of(node)
            if bias is None:
                findings.skipped(node, "it is not quantized, or has no bias of its own")
                continue
            made, wanted = node.outputs[0].name or "", plain.outputs[0]
            got = ours.advance(at, made)
            expected = theirs.advance(there, wanted.name or "")
            offset = _mean_error(expected, got, _bounds(wanted))
            applied = bias.add(offset, editor)
            if not applied.any():
                findings.skipped(node, "no mean error of a step of its bias")
                continue
            shape = (1, -1, *(1,) * (got[0].ndim - 2))
            ours.add(made, applied.astype(np.float32).reshape(shape))
            share = f"{np.count_nonzero(applied)} of {applied.size} channels"
            findings.matched(node, f"{share} by up to {np.abs(applied).max():.3g}")
        return quantized.advanced(clone, Stage.QUANTIZED, findings.result().notes)


def _weighted(graph: ir.Graph) -> list[tuple[int, ir.Node]]:
    return [(i, n) for i, n in enumerate(graph) if not n.domain and bias_index(n) is not None]


def _bounds(value: ir.Value) -> tuple[float, float]:
    """Between which the activation behind a value hands it on."""
    if not carries_activation(value):
        return -np.inf, np.inf
    (use,) = value.uses()
    if use.node.op_type == "Relu":
        return 0.0, np.inf
    low, high = (constant_array(v) for v in use.node.inputs[1:3])
    return (
        -np.inf if low is None else float(low),
        np.inf if high is None else float(high),
    )


def _mean_error(expected: list[Array], got: list[Array], bounds: tuple[float, float]) -> Array:
    """Median over samples of the mean of ``expected - got``, a channel; 0 where too few count."""
    channels = got[0].shape[1]
    means = np.full((len(got), channels), np.nan)
    counts = np.zeros(channels)
    low, high = bounds
    for row, a, b in zip(means, expected, got, strict=True):
        a, b = (np.moveaxis(side, 1, 0).reshape(channels, -1) for side in (a, b))
        inside = ((a > low) & (a < high)) | ((b > low) & (b < high))
        number = inside.sum(axis=1)
        total = np.where(inside, a - b, 0.0).sum(axis=1)
        np.divide(total, number, out=row, where=number > 0)
        counts += number
    seen = (~np.isnan(means)).sum(axis=0)
    enough = (counts >= _FEWEST_POSITIONS) & (seen >= min(_FEWEST_SAMPLES, len(got)))
    found = np.zeros(channels)
    if enough.any():
        found[enough] = np.nanmedian(means[:, enough], axis=0)
    return found


@dataclass(frozen=True)
class _Bias:
    """The bias of a layer of a quantized stage: int32 behind a DequantizeLinear, or floats."""

    node: ir.Node
    index: int
    array: Array
    params: QuantParams | None

    @classmethod
    def of(cls, node: ir.Node) -> _Bias | None:
        index = bias_index(node)
        weights = node.inputs[1].producer() if node.inputs[1] is not None else None
        value = None if index is None else input_at(node, index)
        if index is None or value is None or weights is None or not is_dequantize(weights):
            return None
        array, maker = constant_array(value), value.producer()
        if array is not None and maker is None:
            return cls(node, index, array, None)
        if maker is None or not is_dequantize(maker) or len(value.uses()) != 1:
            return None
        integers = constant_array(maker.inputs[0])
        return None if integers is None else cls(maker, 0, integers, read_params(maker))

    def add(self, offset: Array, editor: GraphEditor) -> Array:
        """Write the corrected bias; what was really added, a channel."""
        if self.array.size != offset.size:
            return np.zeros_like(offset)
        if self.params is None:
            corrected = (self.array.reshape(-1) + offset).astype(self.array.dtype)
            applied: Array = corrected.astype(np.float64) - self.array.reshape(-1)
        else:
            scale = np.asarray(self.params.scale, np.float64)
            info = np.iinfo(self.array.dtype)
            steps = np.clip(np.rint(self.array.reshape(-1) + offset / scale), info.min, info.max)
            corrected = steps.astype(self.array.dtype)
            applied = (corrected.astype(np.float64) - self.array.reshape(-1)) * scale
        old = self.node.inputs[self.index]
        assert old is not None
        shaped = corrected.reshape(self.array.shape)
        self.node.replace_input_with(self.index, editor.constant(f"{old.name}.corrected", shaped))
        return applied
