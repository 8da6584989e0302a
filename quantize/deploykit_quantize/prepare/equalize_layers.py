"""The weights of neighbouring layers are balanced (Nagel et al. 2019, arXiv:1906.04721, sec. 4.1).

With r1 the largest weight of the rows that make a class of channels and r2 of the columns that
read it, the factor sqrt(r2 / r1) makes both sqrt(r1 r2). No data are needed, but where a Clip
bounds channels from above, statistics say how far they may grow.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from deploykit.calibration.table import CalibrationTable
from deploykit.graph.reading import is_op
from deploykit.model import Model
from deploykit.passes.base import Findings
from deploykit.tensors import Array
from deploykit_quantize.prepare.channel_classes import ChannelClasses, find_channel_classes
from deploykit_quantize.prepare.equalize_activations import scale_table
from deploykit_quantize.prepare.scale_channels import scale_channels
from deploykit_quantize.round.base import Need
from deploykit_quantize.weighted_layer import weighted_layer


@dataclass(frozen=True)
class EqualizeLayers:
    """Cross-layer equalization.

    Attributes:
        largest: Factors lie between its inverse and it.
        margin: How much a bounded channel may turn out larger than calibration saw.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.STATISTICS})

    largest: float = 4096.0
    margin: float = 1.3

    def apply(self, model: Model, table: CalibrationTable) -> tuple[Model, CalibrationTable]:
        """The model with balanced weights, and what its values hold.

        Args:
            model: The fused stage that was calibrated; it is not changed.
            table: What its values hold.
        """
        findings = Findings("equalize_layers")
        classes = find_channel_classes(model.graph.graph)
        factors = self._factors(model, classes, table)
        scaled = scale_channels(model, classes, factors)
        for name, held in scaled.channel_factors.items():
            findings.matched(name, f"factors of {min(held):.3g} to {max(held):.3g}")
        if not findings.changed:
            findings.skipped(model.name, "no channels lie between two layers alone")
        scaled = replace(scaled, notes=scaled.notes + findings.result().notes)
        return scaled, scale_table(table, scaled)

    def _factors(self, model: Model, classes: ChannelClasses, table: CalibrationTable) -> Array:
        labels = classes.labels()
        made, read = np.zeros(len(labels) + 1), np.zeros(len(labels) + 1)
        names = {v.name or "": v for v in classes.first}
        for node in model.graph.graph:
            layer = weighted_layer(node)
            if layer is None or layer.name not in names or layer.source not in names:
                continue
            if not is_op(node, "Conv", "Gemm"):
                continue
            rows = np.abs(layer.rows(layer.weights))
            channels = labels[classes.channels(names[layer.name])]
            np.maximum.at(made, channels, rows.max(axis=2).reshape(-1))
            inputs = labels[classes.channels(names[layer.source])]
            taps = rows.reshape(*rows.shape[:2], len(inputs) // layer.groups, -1)
            np.maximum.at(read, inputs, taps.max(axis=(1, 3)).reshape(-1))
        both = (made > 0) & (read > 0)
        found = np.ones(len(labels) + 1)
        found[both] = np.sqrt(read[both] / made[both])
        found = np.clip(found, 1 / self.largest, self.largest)
        for value, bound in classes.bounds:
            seen = table.values.get(value.name or "")
            own = labels[classes.channels(value)]
            room = np.ones(len(own))
            if seen is not None and len(seen.channel_maximum) == len(own):
                highs = np.maximum(np.asarray(seen.channel_maximum), bound / self.largest)
                room = np.where(highs < bound, bound / (highs * self.margin), 1.0)
                # A channel that reaches the bound can neither grow nor shrink.
                found[own[highs >= bound]] = 1.0
            np.minimum.at(found, own, room)
        found[0] = 1.0
        return found[labels]
