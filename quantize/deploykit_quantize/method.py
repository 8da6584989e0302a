"""Methods: which algorithms quantize a model, and in which order.

    fused ──equalization──> fused ──policy──> prepared ──ranges, rounding──> quantized ──bias

``minmax`` is the plain one: ranges are what was seen, weights are rounded to nearest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from deploykit.calibration.collect import collect_statistics
from deploykit.calibration.data import CalibrationData
from deploykit.calibration.table import CalibrationTable
from deploykit.errors import DataError
from deploykit.model import Model
from deploykit.tensors import Array, FloatArray, QuantParams
from deploykit_quantize.layer_inputs import collect_moments
from deploykit_quantize.observe.read_activations import ReadingActivation, read_activations
from deploykit_quantize.policy import Observer, Policy
from deploykit_quantize.prepare.correct_bias import CorrectBias
from deploykit_quantize.prepare.equalize_activations import EqualizeActivations
from deploykit_quantize.prepare.equalize_layers import EqualizeLayers
from deploykit_quantize.quantizer import Placement, place_integers, prepare_model
from deploykit_quantize.round.base import Rounded, Rounding
from deploykit_quantize.round.nearest import Nearest
from deploykit_quantize.round.second_order import SecondOrder
from deploykit_quantize.weighted_layer import WeightedLayer, weighted_layer

_OBSERVER = Observer()
_NEAREST = Nearest()


@dataclass(frozen=True)
class Method:
    """The algorithms of one quantization; each field is one of them, with its options.

    Attributes:
        equalization: What scales channels; None for nothing.
        observer: How ranges are chosen.
        reads_activations: Whether ranges of values that only a HardSwish, HardSigmoid or Silu
            reads are chosen by what comes out of it.
        rounding: How weights become integers.
        bias: What corrects biases; None for nothing.
    """

    equalization: EqualizeActivations | EqualizeLayers | None = None
    observer: Observer = _OBSERVER
    reads_activations: bool = False
    rounding: Rounding = _NEAREST
    bias: CorrectBias | None = None


@dataclass(frozen=True)
class Calibration:
    """What algorithms may be given.

    Attributes:
        table: What the values of the fused stage held.
        data: The samples that it was made from; None where only the table is left.
        held_out: Samples that nothing is fitted to, by which methods are chosen; None if there
            are none.
    """

    table: CalibrationTable
    data: CalibrationData | None = None
    held_out: CalibrationData | None = None


@dataclass(frozen=True)
class _Remembering(Rounding):
    """A rounding that rounds the same weights to the same scales once."""

    rounding: Rounding
    found: dict[object, Rounded] = field(default_factory=dict)

    def round(
        self, layer: WeightedLayer, params: QuantParams, largest: int, moments: FloatArray | None
    ) -> Rounded:
        key = (layer.name, params, largest)
        if key not in self.found:
            self.found[key] = self.rounding.round(layer, params, largest, moments)
        return self.found[key]


@dataclass
class Quantization:
    """One model for one target: stages by method, each made once.

    Attributes:
        fused: The fused stage.
        policy: The target's.
        calibration: Of the fused stage.
    """

    fused: Model
    policy: Policy
    calibration: Calibration
    _prepared: dict[object, tuple[Model, CalibrationTable]] = field(default_factory=dict)
    _moments: dict[object, Mapping[str, Array]] = field(default_factory=dict)
    _roundings: dict[object, Rounding] = field(default_factory=dict)

    def quantize(self, method: Method) -> Model:
        """The quantized stage by a method.

        Raises:
            ContractError: the model is quantized already, or the recipe is not static.
            DataError: the table lacks a value, weights or ranges are not finite, or an algorithm
                needs samples and there are none.
        """
        prepared, table = self._prepare(method)
        placement = Placement(
            observer=method.observer,
            rounding=self._remembered(method),
            moments=self._moments_for(method, prepared),
            activations=self._activations if method.reads_activations else {},
        )
        stage = place_integers(prepared, self.policy, table, placement)
        return stage if method.bias is None else method.bias.apply(prepared, stage, self._data)

    def _prepare(self, method: Method) -> tuple[Model, CalibrationTable]:
        """The prepared stage, and what the values of the fused stage behind it hold."""
        needs_histograms = method.observer.method != "minmax"
        key = (method.equalization, needs_histograms)
        if key not in self._prepared:
            fused, table = self.fused, self.calibration.table
            if method.equalization is not None:
                fused, table = method.equalization.apply(fused, table)
                if needs_histograms and fused.channel_factors:
                    table = collect_statistics(fused, self._data, allow_suspicious=True)
            self._prepared[key] = prepare_model(fused, self.policy), table
        return self._prepared[key]

    def _moments_for(self, method: Method, prepared: Model) -> Mapping[str, Array]:
        if not isinstance(method.rounding, SecondOrder):
            return {}
        key = (method.equalization, method.rounding)
        if key not in self._moments:
            layers = [layer for n in prepared.graph.graph if (layer := weighted_layer(n))]
            chosen = [layer for layer in layers if not method.rounding.skips(layer)]
            self._moments[key] = collect_moments(prepared.graph, chosen, self._data)
        return self._moments[key]

    def _remembered(self, method: Method) -> Rounding:
        if isinstance(method.rounding, Nearest):
            return method.rounding
        key = (method.equalization, method.rounding)
        return self._roundings.setdefault(key, _Remembering(method.rounding))

    @cached_property
    def _activations(self) -> Mapping[str, ReadingActivation]:
        return read_activations(self.fused.graph.graph)

    @property
    def _data(self) -> CalibrationData:
        if self.calibration.data is None:
            raise DataError(
                "an algorithm needs the calibration samples, and only a table is given",
                expected="samples",
                advice="--calibrate instead of --calibration-table, or --method minmax",
            )
        return self.calibration.data
