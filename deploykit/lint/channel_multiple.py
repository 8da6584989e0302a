"""Channels that are no multiple of 8 leave lanes of the vector units idle.

Kernels work on 4, 8 or 16 channels at a time and pad the rest; 8 is what mobile networks round to
(Howard et al. 2019, MobileNetV3's published code and text).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from deploykit.graph.reading import is_op, known_shape
from deploykit.lint.finding import Finding, Severity
from deploykit.lint.rule import LintContext, Rule, label_of, make_severity, register_rule
from deploykit.units import format_count


@register_rule
@dataclass(frozen=True)
class ChannelMultiple(Rule):
    """See the module's docstring.

    Attributes:
        lanes: What channels should be a multiple of.
        serious_waste: Padded over real channels, less one, from which it is a warning, if the
            lanes are worth ``serious_share`` of all mult-adds.
        serious_share: See above.
    """

    id: ClassVar[str] = "channel-multiple"
    severity: ClassVar[Severity] = Severity.WARNING
    text: ClassVar[str] = "channels that are no multiple of 8 leave vector lanes idle"
    lanes: int = 8
    serious_waste: float = 0.1
    serious_share: float = 0.005

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Every convolution whose output channels are no multiple; linear layers are omitted."""
        for layer, node in context.layers():
            if not is_op(node, "Conv"):
                continue
            channels = known_shape(node.inputs[1])[0]
            if channels % self.lanes == 0:
                continue
            padded = math.ceil(channels / self.lanes) * self.lanes
            waste = padded / channels - 1
            share = context.share_of_mult_adds(waste * layer.mult_adds)
            below = padded - self.lanes
            choices = f"{below} or {padded}" if below else str(padded)
            yield Finding(
                rule=self.id,
                severity=make_severity(
                    serious=waste >= self.serious_waste and share >= self.serious_share
                ),
                layer=label_of(layer),
                value_name=layer.name,
                measure="padded channels over real ones",
                number=padded / channels,
                bound=1.0,
                message=f"{channels} output channels run as {padded}: {100 * waste:.1f} % idle "
                f"lanes, {format_count(waste * layer.mult_adds)} mult-adds",
                advice=f"take {choices} channels",
                share=share,
            )
