"""Resolutions that no stride divides: the network computes on padding from there on.

A layer of stride s on n rows makes ceil(n / s) rows where it pads; they stand for s ceil(n / s)
rows of its input, of which only n exist.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from deploykit.cost.layer import LayerCost
from deploykit.graph.ops import POOLS
from deploykit.graph.reading import is_op, read_ints
from deploykit.lint.finding import Finding, Severity
from deploykit.lint.rule import LintContext, Rule, label_of, make_severity, register_rule

if TYPE_CHECKING:
    import onnx_ir as ir

_STRIDED = POOLS | {"Conv"}


@register_rule
@dataclass(frozen=True)
class WastedPadding(Rule):
    """See the module's docstring.

    Attributes:
        serious_waste: Share of computed rows and columns that stand for padding, from which it is
            a warning.
    """

    id: ClassVar[str] = "wasted-padding"
    severity: ClassVar[Severity] = Severity.WARNING
    text: ClassVar[str] = "resolutions that no stride divides compute on padding"
    serious_waste: float = 0.05

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Every strided layer whose output stands for more rows than its input has."""
        strided = [(x, n) for x, n in context.layers() if is_op(n, *_STRIDED)]
        for layer, node in strided:
            strides = read_ints(node, "strides", (1, 1))
            before, after = layer.input_shapes[0][2:], layer.output_shapes[0][2:]
            if all(o * s <= n for o, s, n in zip(after, strides, before, strict=True)):
                continue
            if set(strides) == {1}:
                continue  # a stride of one that pads more than it needs is a separate choice
            rows = zip(after, strides, before, strict=True)
            stands_for = math.prod(max(o * s, n) for o, s, n in rows)
            waste = 1 - math.prod(before) / stands_for
            share = self._share(context, layer)
            yield Finding(
                rule=self.id,
                severity=make_severity(serious=waste >= self.serious_waste),
                layer=label_of(layer),
                value_name=layer.name,
                measure="share of the output that stands for padding",
                number=waste,
                bound=0.0,
                message=f"{_size(before)} with stride {strides[0]} becomes {_size(after)}: "
                f"{100 * waste:.1f} % of it, and of what follows at this size, stands for padding",
                advice=_advice(context, [n for _, n in strided]),
                share=waste * share,
            )

    def _share(self, context: LintContext, layer: LayerCost) -> float:
        size = layer.output_shapes[0][2:]
        same = [x.mult_adds for x in context.cost.layers if _ends_with(x, size)]
        return context.share_of_mult_adds(sum(same))


def _ends_with(layer: LayerCost, size: tuple[int, ...]) -> bool:
    return bool(layer.output_shapes) and layer.output_shapes[0][2:] == size


def _advice(context: LintContext, strided: list[ir.Node]) -> str:
    shapes = [spec.shape for spec in context.fused.inputs if len(spec.shape) == 4]
    if len(shapes) != 1:
        return "choose sizes that the strides divide"
    total = _total_stride(context.graph.graph, strided)
    choices = []
    for length in dict.fromkeys(shapes[0][2:]):
        below = length // total * total
        near = [str(n) for n in (below, below + total) if n]
        choices.append(f"{' or '.join(near)} instead of {length}")
    return f"a resolution that the total stride of {total} divides: {', '.join(choices)}"


def _total_stride(graph: ir.Graph, strided: list[ir.Node]) -> int:
    """The largest product of strides on any path from the input."""
    reached: dict[str, int] = {}
    for node in graph:
        stride = max(
            (reached.get(v.name or "", 1) for v in node.inputs if v is not None), default=1
        )
        if node in strided:
            stride *= max(read_ints(node, "strides", (1, 1)))
        for value in node.outputs:
            reached[value.name or ""] = stride
    return max(reached.values(), default=1)


def _size(lengths: tuple[int, ...]) -> str:
    return "x".join(str(n) for n in lengths)
