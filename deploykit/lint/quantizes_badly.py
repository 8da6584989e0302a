"""Activations that lose accuracy in int8: one scale has to serve a short tail and a long range.

The outputs of these functions have a small negative part, down to the minimum that is reported,
which gets few of the 256 steps when the positive part is large; and 8-bit runtimes have no kernel,
or a slow one, for most of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from deploykit.cost.count import op_name
from deploykit.graph.op_facts import facts_of
from deploykit.lint.finding import Finding, Severity
from deploykit.lint.rule import LintContext, Rule, label_of, make_severity, register_rule
from deploykit.model import Precision

#: Output range that a well behaved layer of such a network has at least.
_USUAL_HIGH = 6.0
_STEPS = 255


@register_rule
@dataclass(frozen=True)
class QuantizesBadly(Rule):
    """See the module's docstring."""

    id: ClassVar[str] = "quantizes-badly"
    severity: ClassVar[Severity] = Severity.WARNING
    text: ClassVar[str] = "activations whose negative tail gets few of int8's steps"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Every such activation, if int8 is wanted."""
        if Precision.INT8 not in context.precisions:
            return
        for layer, node in context.layers():
            op = facts_of(node)
            least = op.least if op is not None else None
            if least is None:
                continue
            steps = _STEPS * -least / (_USUAL_HIGH - least)
            share = context.share_of_access(layer.mac_bytes)
            yield Finding(
                rule=self.id,
                severity=make_severity(serious=True),
                layer=label_of(layer),
                value_name=layer.name,
                measure="int8 steps of the negative part, at an output range up to 6",
                number=steps,
                bound=_STEPS,
                message=f"{op_name(node)} in int8: its negative part, down to {least:g}, gets "
                f"{steps:.0f} of {_STEPS} steps where outputs reach {_USUAL_HIGH:g}, fewer where "
                "they reach further",
                advice="ReLU6, which quantizes well and costs nothing behind a convolution; or "
                "train with quantization, or keep w8",
                share=share,
            )
