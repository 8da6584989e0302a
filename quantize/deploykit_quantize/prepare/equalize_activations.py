"""Every channel of a value fills the one scale of its tensor.

A tensor has one scale, which its widest channel sets; the others use a part of the 256 steps. Each
channel is multiplied by the largest factor with which its range, as calibration saw it, times a
margin for what it has not seen, still lies in the range of the tensor:

    f = min(high of tensor / high of channel, low of tensor / low of channel) / margin, at least 1

A class of tied channels takes the least of its members' factors. Where a Clip bounds a channel
from above, its values times the margin stay below the bound, so that it clips what it clipped; a
channel that reaches the bound is left as it is. The range of no tensor changes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from deploykit.calibration.table import CalibrationTable, ValueStatistics
from deploykit.graph.read_qdq import carries_activation
from deploykit.model import Model
from deploykit.passes.base import Findings
from deploykit.tensors import Array
from deploykit_quantize.prepare.channel_classes import ChannelClasses, find_channel_classes
from deploykit_quantize.prepare.scale_channels import scale_channels
from deploykit_quantize.round.base import Need

#: A channel whose range is narrower than this share of its values is constant: one step of many.
_CONSTANT = 1 / 128
#: Samples from which on a small margin is enough.
_MANY_SAMPLES = 100


@dataclass(frozen=True)
class EqualizeActivations:
    """Activation-based equalization of channels.

    Attributes:
        margin: How much wider a channel may turn out than calibration saw; None for 1.3 from
            100 samples on and 1.6 below.
        largest: No factor is larger.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.STATISTICS})

    margin: float | None = None
    largest: float = 4096.0

    def apply(self, model: Model, table: CalibrationTable) -> tuple[Model, CalibrationTable]:
        """The model with scaled channels, and what its values hold.

        Args:
            model: The fused stage that was calibrated; it is not changed.
            table: With statistics of channels; without them nothing is scaled, and a note says so.
        """
        findings = Findings("equalize_activations")
        margin = self.margin or (1.3 if table.samples >= _MANY_SAMPLES else 1.6)
        classes = find_channel_classes(model.graph.graph)
        factors = self._factors(classes, table, margin)
        for value in classes.first:
            own = factors[classes.channels(value)]
            if (own > 1).any():
                share = f"{int((own > 1).sum())} of {own.size} channels"
                findings.matched(value.name or "", f"{share} by up to {own.max():.3g}")
        if not findings.changed:
            findings.skipped(model.name, "no channel can grow within its tensor's range")
            return _with_notes(model, findings), table
        scaled = _with_notes(scale_channels(model, classes, factors), findings)
        return scaled, scale_table(table, scaled)

    def _factors(self, classes: ChannelClasses, table: CalibrationTable, margin: float) -> Array:
        allowed = np.full(sum(classes.sizes.values()), self.largest)
        for value in classes.first:
            seen = table.values.get(value.name or "")
            known = seen is not None and len(seen.channel_maximum) == classes.sizes[value]
            if not known or seen is None:
                allowed[classes.channels(value)] = 1.0
            elif not carries_activation(value):
                allowed[classes.channels(value)] = np.minimum(_room(seen) / margin, self.largest)
        for value, bound in classes.bounds:
            seen = table.values.get(value.name or "")
            if seen is not None and len(seen.channel_maximum) == classes.sizes[value]:
                highs = np.maximum(np.asarray(seen.channel_maximum), bound / self.largest)
                room = np.where(highs < bound, bound / (highs * margin), 1.0)
                channels = classes.channels(value)
                allowed[channels] = np.minimum(allowed[channels], room)
        labels = classes.labels()
        least = np.full(len(labels) + 1, np.inf)
        np.minimum.at(least, labels, allowed)
        least[0] = 1.0
        found: Array = np.maximum(least[labels], 1.0)
        return found


def _room(seen: ValueStatistics) -> Array:
    """How often the range of each channel goes into that of the tensor."""
    lows, highs = np.asarray(seen.channel_minimum), np.asarray(seen.channel_maximum)
    low, high = min(seen.minimum, 0.0), max(seen.maximum, 0.0)
    tiny = 1e-30
    above = np.where(highs > 0, high / np.maximum(highs, tiny), np.inf)
    below = np.where(lows < 0, low / np.minimum(lows, -tiny), np.inf)
    room = np.minimum(above, below)
    # A dead channel stays as it is, and so does a constant one: nothing is gained, and where its
    # input is zero throughout, its weights may have any size already.
    constant = highs - lows < _CONSTANT * np.maximum(highs, -lows)
    return np.where(np.isfinite(room) & ~constant, room, 1.0)


def scale_table(table: CalibrationTable, model: Model) -> CalibrationTable:
    """The table of a model whose channels were scaled.

    Minimum and maximum of each value follow from those of its channels; the histogram of a scaled
    value does not, and is empty.
    """
    values = dict(table.values)
    for name, held in model.channel_factors.items():
        seen = values.get(name)
        if seen is None or len(seen.channel_maximum) != len(held):
            continue
        factors = np.asarray(held)
        lows = factors * np.asarray(seen.channel_minimum)
        highs = factors * np.asarray(seen.channel_maximum)
        values[name] = replace(
            seen,
            minimum=float(lows.min()),
            maximum=float(highs.max()),
            histogram=(0,) * len(seen.histogram),
            channel_minimum=tuple(map(float, lows)),
            channel_maximum=tuple(map(float, highs)),
        )
    return replace(table, values=values)


def _with_notes(model: Model, findings: Findings) -> Model:
    return replace(model, notes=model.notes + findings.result().notes)
