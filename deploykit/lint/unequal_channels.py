"""G1: a 1x1 convolution moves least where its input and output channels are equal.

At B mult-adds on an area of hw, its memory-access cost hw (c1 + c2) + c1 c2 is at least
2 sqrt(hw B) + B / hw, reached at c1 = c2 (Ma et al. 2018, G1).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from deploykit.cost.bounds import pointwise_mac_bound, pointwise_mac_elements
from deploykit.graph.reading import is_op, known_shape, read_int, read_ints
from deploykit.lint.finding import Finding, Severity
from deploykit.lint.rule import LintContext, Rule, label_of, make_severity, register_rule
from deploykit.units import format_bytes

_FLOAT_BYTES = 4


@register_rule
@dataclass(frozen=True)
class UnequalChannels(Rule):
    """See the module's docstring.

    Attributes:
        told_ratio: Cost over bound from which a layer is reported.
        serious_ratio: From which it is a warning, if it also is worth ``serious_share``.
        serious_share: Excess over the network's memory-access cost.
    """

    id: ClassVar[str] = "unequal-channels"
    severity: ClassVar[Severity] = Severity.WARNING
    text: ClassVar[str] = "1x1 convolutions move least with as many output as input channels"
    told_ratio: float = 1.1
    serious_ratio: float = 1.25
    serious_share: float = 0.01

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Every dense 1x1 convolution of stride 1 that is far above its bound."""
        for layer, node in context.layers():
            if not is_op(node, "Conv") or read_int(node, "group", 1) != 1:
                continue
            c2, c1, *window = known_shape(node.inputs[1])
            if set(window) != {1} or set(read_ints(node, "strides", (1, 1))) != {1}:
                continue
            area = math.prod(layer.output_shapes[0]) // c2
            cost = pointwise_mac_elements(area, c1, c2)
            bound = pointwise_mac_bound(area, area * c1 * c2)
            if cost / bound < self.told_ratio:
                continue
            excess = _FLOAT_BYTES * (cost - bound)
            share = context.share_of_access(excess)
            equal = round(math.sqrt(c1 * c2))
            yield Finding(
                rule=self.id,
                severity=make_severity(
                    serious=cost / bound >= self.serious_ratio and share >= self.serious_share
                ),
                layer=label_of(layer),
                value_name=layer.name,
                measure="memory-access cost over the least at the same mult-adds",
                number=cost / bound,
                bound=1.0,
                message=f"{c1} > {c2} channels: {format_bytes(_FLOAT_BYTES * cost)} of memory "
                f"access, {cost / bound:.2f} x the least at these mult-adds "
                f"({format_bytes(_FLOAT_BYTES * bound)})",
                advice=f"bring the two closer: {equal} > {equal} has the same mult-adds and saves "
                f"{format_bytes(excess)}",
                share=share,
            )
