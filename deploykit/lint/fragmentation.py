"""G3: many small branches, side by side or one behind the other, make a block slow.

Each costs the start of a kernel and, side by side, a synchronization; and what passes between them
goes through memory (Ma et al. 2018, G3). A block is what lies between two points of the graph
where nothing but the outputs of one node is alive.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from deploykit.cost.formulas import data_inputs, elements
from deploykit.cost.layer import LayerCost
from deploykit.graph.ops import LINEAR_OPS, POOLS
from deploykit.graph.reading import is_op
from deploykit.lint.finding import Finding, Severity
from deploykit.lint.rule import LintContext, Rule, label_of, make_severity, register_rule
from deploykit.units import format_bytes, format_count

if TYPE_CHECKING:
    import onnx_ir as ir

    Layers = Sequence[tuple[LayerCost, ir.Node]]

_FLOAT_BYTES = 4
_FRAGMENTS = LINEAR_OPS | POOLS


@register_rule
@dataclass(frozen=True)
class Fragmentation(Rule):
    """See the module's docstring.

    Attributes:
        told: Number of convolutions and pools a block from which it is reported.
        serious: From which it is a warning.
        serious_width: Number of them side by side from which it is a warning.
    """

    id: ClassVar[str] = "fragmentation"
    severity: ClassVar[Severity] = Severity.WARNING
    text: ClassVar[str] = "many small branches a block cost starts, waits and memory access"
    told: int = 5
    serious: int = 8
    serious_width: int = 3

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Every block with many fragments."""
        for block in split_blocks(list(context.layers())):
            count, width, depth = measure_block(block)
            if count < self.told and width < self.serious_width:
                continue
            access = sum(layer.mac_bytes for layer, _ in block)
            inner = _inner_bytes(block)
            mult_adds = sum(layer.mult_adds for layer, _ in block)
            share = context.share_of_access(inner)
            yield Finding(
                rule=self.id,
                severity=make_severity(
                    serious=count >= self.serious or width >= self.serious_width
                ),
                layer=_common_module([layer for layer, _ in block]),
                value_name=block[-1][0].name,
                measure="convolutions and pools a block",
                number=count,
                bound=self.told - 1,
                message=f"{count} convolutions and pools in {len(block)} layers, {width} side by "
                f"side and {depth} one behind the other, of {format_count(mult_adds / count)} "
                f"mult-adds on average; {format_bytes(inner)} of {format_bytes(access)} of memory "
                "access is passing values between them",
                advice="fewer and larger convolutions at the same mult-adds; drop the smallest "
                "branches (squeeze-and-excite, cheap operations) where the accuracy allows it",
                share=share,
            )


def split_blocks(layers: Layers) -> list[Layers]:
    """Cut a graph wherever all that is alive was made by one node."""
    made_by = {value: index for index, (_, node) in enumerate(layers) for value in node.outputs}
    # An absorbed clamp's output is the layer's: readers see that name.
    by_name = {layer.name: index for index, (layer, _) in enumerate(layers)}
    last_use = dict.fromkeys(range(-1, len(layers)), -1)  # -1 stands for the graph's inputs
    for index, (_, node) in enumerate(layers):
        for value in data_inputs(node):
            maker = made_by.get(value, by_name.get(value.name or "", -1))
            last_use[maker] = index
    blocks: list[Layers] = []
    start = 0
    for index in range(len(layers)):
        alive = [maker for maker in range(-1, index + 1) if last_use[maker] > index]
        if len(alive) <= 1:
            blocks.append(layers[start : index + 1])
            start = index + 1
    if start < len(layers):
        blocks.append(layers[start:])
    return blocks


def measure_block(block: Layers) -> tuple[int, int, int]:
    """Number of fragments, the most side by side, the most one behind the other."""
    depth_of: dict[str, int] = {}
    widths: Counter[int] = Counter()
    for layer, node in block:
        depth = max((depth_of.get(v.name or "", 0) for v in data_inputs(node)), default=0)
        if is_op(node, *_FRAGMENTS):
            depth += 1
            widths[depth] += 1
        for value in node.outputs:
            depth_of[value.name or ""] = depth
        depth_of[layer.name] = depth
    total = sum(widths.values())
    return total, max(widths.values(), default=0), max(widths, default=0)


def _inner_bytes(block: Layers) -> int:
    """Written by one layer of a block and read by others of it."""
    sizes = {}
    for layer, node in block:
        for value in node.outputs:
            sizes[value.name or ""] = _FLOAT_BYTES * elements(value)
        sizes[layer.name] = _FLOAT_BYTES * elements(node.outputs[0])
    read = [v.name or "" for _, node in block for v in data_inputs(node) if v.name in sizes]
    return sum(sizes[name] for name in read) + sum(sizes[name] for name in dict.fromkeys(read))


def _common_module(layers: Sequence[LayerCost]) -> str:
    modules = [layer.module.split(".") for layer in layers if layer.module]
    common: list[str] = []
    for parts in zip(*modules, strict=False):  # to the end of the shortest
        if len(set(parts)) != 1:
            break
        common.append(parts[0])
    return ".".join(common) or f"{label_of(layers[0])} ... {label_of(layers[-1])}"
