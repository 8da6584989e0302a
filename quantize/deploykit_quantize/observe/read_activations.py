"""Ranges of values that only one kind of activation reads, by what comes out of it.

1.  HardSwish(x) = x min(max(x + 3, 0), 6) / 6 is 0 for every x below -3, HardSigmoid below
    -beta / alpha, and 1 above (1 - beta) / alpha: the range ends there, and nothing is lost.
2.  Silu(x) = x sigmoid(x) hardly depends on x far below 0. The lower end is the one for which
    the mean squared error of Silu(x) over the histogram of x is least.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deploykit.graph.reading import read_float
from deploykit.tensors import Array
from deploykit_quantize.arithmetic import params_from_range
from deploykit_quantize.policy import TensorRule

if TYPE_CHECKING:
    import onnx_ir as ir

    from deploykit.calibration.table import ValueStatistics

_SHRINKAGES = np.linspace(1.0, 0.1, 37)


@dataclass(frozen=True)
class ReadingActivation:
    """What reads a value.

    Attributes:
        low: Below it the activation is constant.
        high: Above it the activation is constant.
        function: The activation, where its error decides the lower end; None where the ends do.
    """

    low: float = -np.inf
    high: float = np.inf
    function: Callable[[Array], Array] | None = None

    def narrow(
        self, found: tuple[float, float], statistics: ValueStatistics, rule: TensorRule
    ) -> tuple[float, float]:
        """The range to quantize, within the one that was found."""
        low, high = found
        if self.function is None:
            return min(max(low, self.low), 0.0), max(min(high, self.high), 0.0)
        counts = np.asarray(statistics.histogram, np.float64)
        if low >= 0 or rule.symmetric or not counts.sum():
            return found
        edges = np.linspace(statistics.minimum, statistics.maximum, counts.size + 1)
        centres, counts = ((edges[:-1] + edges[1:]) / 2)[counts > 0], counts[counts > 0]
        wanted = self.function(centres)

        def error(end: float) -> float:
            params = params_from_range(end, high, rule)
            seen = params.dequantize(params.quantize(centres)).astype(np.float64)
            return float((counts * (self.function(seen) - wanted) ** 2).sum())  # type: ignore[misc]

        errors = [error(low * share) for share in _SHRINKAGES]
        return low * float(_SHRINKAGES[int(np.argmin(errors))]), high


def _silu(x: Array) -> Array:
    y: Array = x / (1 + np.exp(np.minimum(-x, 700.0)))
    return y


def read_activations(graph: ir.Graph) -> Mapping[str, ReadingActivation]:
    """Name of each value that nothing but one kind of such activations reads → what reads it."""
    found = {}
    for value in (v for node in graph for v in node.outputs):
        readers = [use.node for use in value.uses()]
        if not readers or value.is_graph_output():
            continue
        kinds = {(node.domain, node.op_type) for node in readers}
        if kinds == {("", "HardSwish")}:
            found[value.name or ""] = ReadingActivation(low=-3.0)
        elif kinds == {("deploykit", "Silu")}:
            found[value.name or ""] = ReadingActivation(function=_silu)
        elif kinds == {("", "HardSigmoid")} and len(readers) == 1:
            alpha, beta = read_float(readers[0], "alpha", 0.2), read_float(readers[0], "beta", 0.5)
            if alpha > 0 and 0 < beta < 1:
                found[value.name or ""] = ReadingActivation(-beta / alpha, (1 - beta) / alpha)
    return found
