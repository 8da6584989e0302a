"""Each spatial kernel keeps its sum, without data.

Images, and the feature maps near them, hold most of their power in what neighbours have in common:
what a kernel does to it is its sum. Nearest rounding moves the sum of a 3 x 3 kernel by half a step
times the root of 9 / 12; here it moves by less than one step over all, at the price of somewhat
larger errors in the single weights. The error that is kept small is

    |e|^2 + strength (sum of e over one kernel)^2            H = I + strength 1 1^T, a kernel

Layers whose kernel has one tap have no such sum: they are rounded to nearest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deploykit.tensors import FloatArray, QuantParams
from deploykit_quantize.arithmetic import quantize_weights_to
from deploykit_quantize.round.base import Rounded, Rounding
from deploykit_quantize.round.integers import integers_of_rows
from deploykit_quantize.round.optimal_brain import round_rows
from deploykit_quantize.weighted_layer import WeightedLayer

#: Kernels with more weights a row than this are those of layers in the depth of a network, whose
#: inputs have no common part.
_MOST_WEIGHTS = 128


@dataclass(frozen=True)
class KeepSums(Rounding):
    """Rounding that keeps the sum of each kernel of the stem and of depthwise layers.

    Attributes:
        strength: How much the error of a kernel's sum counts beside that of single weights.
    """

    strength: float = 30.0

    def round(
        self, layer: WeightedLayer, params: QuantParams, largest: int, moments: FloatArray | None
    ) -> Rounded:
        """See `Rounding.round`; the moments are not looked at."""
        why = layer.why_no_rows or ("" if layer.is_spatial else "its kernel has one tap")
        if not why and layer.inputs_per_unit > _MOST_WEIGHTS:
            why = f"{layer.inputs_per_unit} weights a channel, more than {_MOST_WEIGHTS}"
        if why:
            return Rounded(quantize_weights_to(params, layer.weights), False, f"nearest: {why}")
        taps = int(np.prod(layer.weights.shape[2:]))
        steps = layer.rows(layer.weights) / layer.row_scales(params)[..., None]
        kernels = steps.reshape(1, -1, taps)
        hessian = np.eye(taps)[None] + self.strength
        rounded = round_rows(kernels, hessian, largest).reshape(steps.shape)
        return Rounded(integers_of_rows(layer, rounded, params), True, "each kernel keeps its sum")
