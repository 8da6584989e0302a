"""Each layer keeps what it does to its calibration inputs.

With ``x`` a window that the layer reads and ``e`` the error of one row of its weights, the error of
its output is e x, and over all windows E[(e x)^2] = e E[x x^T] e^T: the rounding takes the second
moments of the inputs as its H (`deploykit_quantize.round.optimal_brain`). They are damped, so that
directions which the samples hardly show still count:

    H = E[x x^T] + damping * mean(diagonal) * I          group by group

An input that is 0 throughout the calibration set has no part in H but the damping: its weights
come out as the nearest integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from deploykit.tensors import Array, FloatArray, QuantParams
from deploykit_quantize.arithmetic import quantize_weights_to
from deploykit_quantize.round.base import Need, Rounded, Rounding
from deploykit_quantize.round.integers import integers_of_rows
from deploykit_quantize.round.optimal_brain import round_rows
from deploykit_quantize.weighted_layer import WeightedLayer


@dataclass(frozen=True)
class SecondOrder(Rounding):
    """Rounding by the second moments of what a layer reads.

    Attributes:
        damping: Share of the mean diagonal that is added to it.
        most_weights: Layers with more weights an output channel are rounded to nearest: time and
            memory grow with the square.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.LAYER_INPUTS})

    damping: float = 0.01
    most_weights: int = 2304

    def skips(self, layer: WeightedLayer) -> str:
        """Why a layer is rounded to nearest; empty if it is not."""
        if layer.why_no_rows:
            return layer.why_no_rows
        if layer.inputs_per_unit > self.most_weights:
            return f"{layer.inputs_per_unit} weights a channel, more than {self.most_weights}"
        return ""

    def round(
        self, layer: WeightedLayer, params: QuantParams, largest: int, moments: FloatArray | None
    ) -> Rounded:
        """See `Rounding.round`."""
        why = self.skips(layer)
        if not why and (moments is None or not np.isfinite(moments).all() or not moments.any()):
            why = "nothing is known of what it reads"
        if why or moments is None:
            return Rounded(quantize_weights_to(params, layer.weights), False, f"nearest: {why}")
        steps = layer.rows(layer.weights) / layer.row_scales(params)[..., None]
        rounded = round_rows(steps, self._damped(moments), largest)
        return Rounded(
            integers_of_rows(layer, rounded, params),
            True,
            "rounded by the second moments of what it reads",
        )

    def _damped(self, moments: FloatArray) -> Array:
        hessian = np.asarray(moments, np.float64).copy()
        diagonal = np.einsum("gii->gi", hessian)
        level = diagonal.mean(axis=1)
        # A group that reads nothing but zeros: any positive matrix rounds it to nearest.
        level = np.where(level > 0, level, 1.0)
        diagonal += self.damping * level[:, None]
        return hessian
