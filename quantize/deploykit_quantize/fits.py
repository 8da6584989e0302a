"""What was fitted to the calibration samples of one fused stage: made once, for every target.

Targets prepare the fused stage each in its own way, but most layers read the same values with the
same windows in all of them, and round the same weights to the same scales.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from deploykit.calibration.collect import collect_statistics
from deploykit.calibration.data import CalibrationData
from deploykit.calibration.table import CalibrationTable
from deploykit.model import Model
from deploykit.tensors import Array, FloatArray, QuantParams
from deploykit_quantize.layer_inputs import collect_moments
from deploykit_quantize.prepare.equalize_activations import EqualizeActivations
from deploykit_quantize.prepare.equalize_layers import EqualizeLayers
from deploykit_quantize.round.base import Rounded, Rounding
from deploykit_quantize.round.nearest import Nearest
from deploykit_quantize.round.second_order import SecondOrder
from deploykit_quantize.weighted_layer import WeightedLayer, weighted_layer

Equalization = EqualizeActivations | EqualizeLayers
_ByWindows = Mapping[tuple[object, ...], Array]


@dataclass(frozen=True)
class _Remembering(Rounding):
    """A rounding that rounds the same weights to the same scales once."""

    rounding: Rounding
    found: dict[object, Rounded] = field(default_factory=dict)

    def round(
        self, layer: WeightedLayer, params: QuantParams, largest: int, moments: FloatArray | None
    ) -> Rounded:
        weights = hashlib.sha256(layer.weights.tobytes()).digest()
        # Moments are kept by `Fits`: the same ones are the same object.
        key = (layer.window_key, layer.weights.shape, weights, params, largest, id(moments))
        if key not in self.found:
            self.found[key] = self.rounding.round(layer, params, largest, moments)
        return self.found[key]


@dataclass
class Fits:
    """Equalized stages, second moments and rounded weights that were asked for already."""

    _equalized: dict[object, tuple[Model, Model, CalibrationTable]] = field(default_factory=dict)
    _measured: dict[object, CalibrationTable] = field(default_factory=dict)
    _moments: dict[object, tuple[Model, _ByWindows]] = field(default_factory=dict)
    _roundings: dict[Rounding, Rounding] = field(default_factory=dict)

    def equalize(
        self, fused: Model, equalization: Equalization, table: CalibrationTable
    ) -> tuple[Model, CalibrationTable]:
        """The equalized stage, and its table; what that does not know is not in its histograms."""
        key = (id(fused), equalization)
        if key not in self._equalized:
            self._equalized[key] = (fused, *equalization.apply(fused, table))
        _, model, scaled = self._equalized[key]
        return model, scaled

    def measure(self, equalized: Model, samples: CalibrationData) -> CalibrationTable:
        """Statistics of an equalized stage, histograms too."""
        if id(equalized) not in self._measured:
            table = collect_statistics(equalized, samples, allow_suspicious=True)
            self._measured[id(equalized)] = table
        return self._measured[id(equalized)]

    def moments(
        self, fused: Model, prepared: Model, rounding: SecondOrder, samples: CalibrationData
    ) -> dict[str, Array]:
        """Name of a layer of the prepared stage → second moments of what it reads.

        Those of the fused stage serve every target: a value that a target holds otherwise (a
        multiple, other axes) bears another name there, and a layer that it rewrites has other
        windows.
        """
        shared = self._collected(fused, _layers(fused, rounding), rounding, samples)
        layers = _layers(prepared, rounding)
        other = [layer for layer in layers if layer.window_key not in shared]
        own = self._collected(prepared, other, rounding, samples) if other else {}
        return {layer.name: {**shared, **own}[layer.window_key] for layer in layers}

    def _collected(
        self,
        model: Model,
        layers: list[WeightedLayer],
        rounding: SecondOrder,
        samples: CalibrationData,
    ) -> _ByWindows:
        key = (id(model), rounding)
        if key not in self._moments:
            self._moments[key] = model, collect_moments(model.graph, layers, samples)
        return self._moments[key][1]

    def remembered(self, rounding: Rounding) -> Rounding:
        """The rounding, which remembers what it rounded."""
        if isinstance(rounding, Nearest):
            return rounding
        return self._roundings.setdefault(rounding, _Remembering(rounding))


def _layers(model: Model, rounding: SecondOrder) -> list[WeightedLayer]:
    """Those that the rounding wants to know the inputs of."""
    found = [layer for node in model.graph.graph if (layer := weighted_layer(node))]
    return [layer for layer in found if not rounding.skips(layer)]
