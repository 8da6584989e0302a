"""What a rounding is: a frozen dataclass whose fields are its options."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from deploykit.tensors import Array, FloatArray, QuantParams
from deploykit_quantize.weighted_layer import WeightedLayer


class Need(Enum):
    """What an algorithm must be given besides the graph."""

    STATISTICS = "statistics of values"
    LAYER_INPUTS = "what layers read, over the calibration set"


@dataclass(frozen=True)
class Rounded:
    """Integers of one layer's weights.

    Attributes:
        integers: In ONNX's layout, of the parameters' dtype.
        changed: Whether it did what it is for; if not, the integers are the nearest.
        reason: What it did, or why it did not.
    """

    integers: Array
    changed: bool
    reason: str


class Rounding(ABC):
    """Base of all roundings; scales are given, and stay."""

    needs: ClassVar[frozenset[Need]] = frozenset()

    @abstractmethod
    def round(
        self, layer: WeightedLayer, params: QuantParams, largest: int, moments: FloatArray | None
    ) -> Rounded:
        """The integers of a layer's weights.

        Args:
            layer: The layer.
            params: Scales and zero points; symmetric.
            largest: The largest distance from the zero point, in steps.
            moments: E[x x^T] of the windows that it reads, (groups, n, n); None where unknown.
        """
