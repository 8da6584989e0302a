"""G4: element-wise ops compute little and move much.

Adds, multiplications and activations that no convolution absorbs have few FLOPs, and a share of
the memory-access cost, and of the time, that counts (Ma et al. 2018, G4).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from deploykit.cost.count import op_name
from deploykit.graph.op_facts import facts_of
from deploykit.lint.finding import Finding, Severity
from deploykit.lint.rule import LintContext, Rule, label_of, make_severity, register_rule
from deploykit.units import format_bytes

if TYPE_CHECKING:
    import onnx_ir as ir

_ADVICE = {
    "Add": "drop the shortcut where the block is wide, or concatenate instead",
    "Mul": "squeeze-and-excite in fewer blocks",
    "HardSwish": "ReLU in the early, large layers: a convolution computes it for nothing",
    "deploykit::Silu": "ReLU or h-swish: a convolution computes a ReLU for nothing",
}


@register_rule
@dataclass(frozen=True)
class ElementwiseShare(Rule):
    """See the module's docstring.

    Attributes:
        told: Share of all element-wise ops from which the network is reported.
        serious: From which it is a warning.
        told_layer: Share of one op from which it is told by itself.
    """

    id: ClassVar[str] = "elementwise-share"
    severity: ClassVar[Severity] = Severity.WARNING
    text: ClassVar[str] = "element-wise ops move memory and compute little"
    told: float = 0.1
    serious: float = 0.2
    told_layer: float = 0.02

    def check(self, context: LintContext) -> Iterator[Finding]:
        """The whole network's share, and the layers that make it."""
        found = [(layer, node) for layer, node in context.layers() if _is_elementwise(node)]
        total = sum(layer.mac_bytes for layer, _ in found)
        share = context.share_of_access(total)
        if share < self.told:
            return
        flops = sum(layer.flops for layer, _ in found)
        yield Finding(
            rule=self.id,
            severity=make_severity(serious=share >= self.serious),
            layer="(whole network)",
            value_name="",
            measure="element-wise ops' share of the memory-access cost",
            number=share,
            bound=self.told,
            message=f"{len(found)} element-wise ops move {format_bytes(total)}, "
            f"{100 * share:.1f} % of the memory access, for "
            f"{100 * flops / max(context.cost.flops, 1):.1f} % of the FLOPs",
            advice="see the layers below for what each could become",
            share=share,
        )
        for layer, node in found:
            part = context.share_of_access(layer.mac_bytes)
            if part >= self.told_layer:
                yield Finding(
                    rule=self.id,
                    severity=Severity.INFO,
                    layer=label_of(layer),
                    value_name=layer.name,
                    measure="share of the memory-access cost",
                    number=part,
                    bound=self.told_layer,
                    message=f"{op_name(node)} moves {format_bytes(layer.mac_bytes)}, "
                    f"{100 * part:.1f} % of the memory access, at {layer.intensity:.2f} FLOP/byte",
                    advice=_ADVICE.get(op_name(node), "do without it, or earlier and smaller"),
                    share=part,
                )


def _is_elementwise(node: ir.Node) -> bool:
    op = facts_of(node)
    return op is not None and op.cost.split(" ")[0] in ("elementwise", "gelu")
