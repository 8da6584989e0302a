"""G2: groups raise the memory-access cost at the same mult-adds.

With B mult-adds, an input of A elements, k k taps and g groups, a convolution moves
A + B g / (c1 k k) + B / hw: its output grows with g (Ma et al. 2018, G2, there for k = 1).
Depthwise convolutions are omitted: they are what the mult-adds are saved with.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from deploykit.cost.count import is_depthwise
from deploykit.graph.reading import is_op, known_shape, read_int
from deploykit.lint.finding import Finding, Severity
from deploykit.lint.rule import LintContext, Rule, label_of, make_severity, register_rule
from deploykit.units import format_bytes

_FLOAT_BYTES = 4


@register_rule
@dataclass(frozen=True)
class GroupedConvolution(Rule):
    """See the module's docstring.

    Attributes:
        serious_ratio: Cost over that of one group from which a layer is a warning.
    """

    id: ClassVar[str] = "grouped-convolution"
    severity: ClassVar[Severity] = Severity.WARNING
    text: ClassVar[str] = "groups raise the memory access at the same mult-adds"
    serious_ratio: float = 1.2

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Every convolution with groups that is not depthwise."""
        for layer, node in context.layers():
            groups = read_int(node, "group", 1) if is_op(node, "Conv") else 1
            if groups == 1 or is_depthwise(node):
                continue
            c2, per_group, *window = known_shape(node.inputs[1])
            c1, taps = per_group * groups, math.prod(window)
            area = math.prod(layer.output_shapes[0]) // c2
            read = math.prod(layer.input_shapes[0])
            cost = read + layer.mult_adds * groups / (c1 * taps) + layer.mult_adds / area
            dense = read + layer.mult_adds / (c1 * taps) + layer.mult_adds / area
            excess = _FLOAT_BYTES * (cost - dense)
            yield Finding(
                rule=self.id,
                severity=make_severity(serious=cost / dense >= self.serious_ratio),
                layer=label_of(layer),
                value_name=layer.name,
                measure="memory-access cost over that of one group at the same mult-adds",
                number=cost / dense,
                bound=1.0,
                message=f"{groups} groups, {c1} > {c2} channels: "
                f"{format_bytes(_FLOAT_BYTES * cost)} of memory access, {cost / dense:.2f} x that "
                f"of one group at the same mult-adds ({c1} > {c2 // groups} channels)",
                advice=f"take fewer groups and fewer channels: one group saves up to "
                f"{format_bytes(excess)}, and the shuffle behind it",
                share=context.share_of_access(excess),
            )
