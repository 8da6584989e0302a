"""Each weight to the nearest integer, ties to even: the least error of each by itself."""

from __future__ import annotations

from dataclasses import dataclass

from deploykit.tensors import FloatArray, QuantParams
from deploykit_quantize.arithmetic import quantize_weights_to
from deploykit_quantize.round.base import Rounded, Rounding
from deploykit_quantize.weighted_layer import WeightedLayer


@dataclass(frozen=True)
class Nearest(Rounding):
    """Rounding to nearest."""

    def round(
        self, layer: WeightedLayer, params: QuantParams, largest: int, moments: FloatArray | None
    ) -> Rounded:
        """See `Rounding.round`; the moments are not looked at."""
        return Rounded(quantize_weights_to(params, layer.weights), False, "rounded to nearest")
