"""Methods: which algorithms quantize a model, and in which order.

    fused ──equalization──> fused ──policy──> prepared ──ranges, rounding──> quantized ──bias

``minmax`` is the plain one: ranges are what was seen, weights are rounded to nearest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from deploykit.calibration.data import CalibrationData
from deploykit.calibration.table import CalibrationTable
from deploykit.errors import DataError
from deploykit.model import Model
from deploykit.tensors import Array
from deploykit_quantize.fits import Equalization, Fits
from deploykit_quantize.observe.read_activations import ReadingActivation, read_activations
from deploykit_quantize.policy import Observer, Policy
from deploykit_quantize.prepare.correct_bias import CorrectBias
from deploykit_quantize.quantizer import Placement, place_integers, prepare_model
from deploykit_quantize.round.base import Rounding
from deploykit_quantize.round.nearest import Nearest
from deploykit_quantize.round.second_order import SecondOrder

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

    equalization: Equalization | None = None
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
        fits: What was fitted already, whichever target asked.
    """

    table: CalibrationTable
    data: CalibrationData | None = None
    held_out: CalibrationData | None = None
    fits: Fits = field(default_factory=Fits, compare=False, repr=False)

    @property
    def samples(self) -> CalibrationData:
        """The samples.

        Raises:
            DataError: only a table is given.
        """
        if self.data is None:
            raise DataError(
                "an algorithm needs the calibration samples, and only a table is given",
                expected="samples",
                advice="--calibrate instead of --calibration-table, or --method minmax",
            )
        return self.data


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
    _prepared: dict[object, Model] = field(default_factory=dict)

    def quantize(self, method: Method) -> Model:
        """The quantized stage by a method.

        Raises:
            ContractError: the model is quantized already, or the recipe is not static.
            DataError: the table lacks a value, weights or ranges are not finite, or an algorithm
                needs samples and there are none.
        """
        fused, table = self._equalized(method)
        prepared = self.prepare(method)
        fits = self.calibration.fits
        moments: Mapping[str, Array] = {}
        if isinstance(method.rounding, SecondOrder):
            moments = fits.moments(fused, prepared, method.rounding, self.calibration.samples)
        placement = Placement(
            observer=method.observer,
            rounding=fits.remembered(method.rounding),
            moments=moments,
            activations=self._activations if method.reads_activations else {},
        )
        stage = place_integers(prepared, self.policy, table, placement)
        if method.bias is None:
            return stage
        return method.bias.apply(prepared, stage, self.calibration.samples)

    def _equalized(self, method: Method) -> tuple[Model, CalibrationTable]:
        """The fused stage as the method wants it, and what its values hold."""
        calibration = self.calibration
        if method.equalization is None:
            return self.fused, calibration.table
        fused, table = calibration.fits.equalize(self.fused, method.equalization, calibration.table)
        if method.observer.method != "minmax" and fused.channel_factors:
            table = calibration.fits.measure(fused, calibration.samples)
        return fused, table

    def prepare(self, method: Method) -> Model:
        """The prepared stage by a method: in floats, as the quantized one is made of it."""
        if method.equalization not in self._prepared:
            fused, _ = self._equalized(method)
            self._prepared[method.equalization] = prepare_model(fused, self.policy)
        return self._prepared[method.equalization]

    @cached_property
    def _activations(self) -> Mapping[str, ReadingActivation]:
        return read_activations(self.fused.graph.graph)
