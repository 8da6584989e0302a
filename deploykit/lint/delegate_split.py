"""Ops that the runtime's fast kernel library does not take, so that the network falls in pieces.

Which ops these are is the target's to say (``split_finder`` of its definition); the core knows no
runtime.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from deploykit.errors import UnsupportedOpsError
from deploykit.graph.reading import is_op
from deploykit.lint.finding import Finding, Severity
from deploykit.lint.rule import LintContext, Rule, label_of, register_rule
from deploykit.model import Precision


@register_rule
@dataclass(frozen=True)
class DelegateSplits(Rule):
    """See the module's docstring."""

    id: ClassVar[str] = "delegate-split"
    severity: ClassVar[Severity] = Severity.ERROR
    text: ClassVar[str] = "ops that the runtime's fast kernels leave to slow ones"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Every op that is left, in every precision that is wanted.

        With convolutions before and behind it, it cuts the network in two: an error. At an end it
        costs its own time alone: a warning. An op that cannot be lowered at all is an error.
        """
        target = context.target
        if target is None or not target.split_finder:
            return
        layers = list(context.layers())
        heavy = [i for i, (_, node) in enumerate(layers) if is_op(node, "Conv", "Gemm")]
        position = {
            name: index
            for index, (layer, node) in enumerate(layers)
            for name in (layer.name, *(v.name or "" for v in node.outputs))
        }
        for precision in context.precisions:
            try:
                splits = target.delegate_splits(context.fused, precision)
            except UnsupportedOpsError as error:
                yield from self._unsupported(error, precision)
                continue
            for split in splits:
                index = position.get(split.value)
                layer = layers[index][0] if index is not None else None
                inside = index is not None and bool(heavy) and heavy[0] < index < heavy[-1]
                where = "convolutions before and behind it: the network falls in pieces there"
                yield Finding(
                    rule=self.id,
                    severity=Severity.ERROR if inside else Severity.WARNING,
                    layer=label_of(layer) if layer is not None else split.value,
                    value_name=split.value,
                    measure=f"ops left by {split.library} in {precision.value}",
                    number=len(splits),
                    bound=0,
                    message=f"{split.op} in {precision.value} is not taken by {split.library}"
                    + (f"; {where}" if inside else ", at an end of the network"),
                    advice="replace the op with one that is taken (docs/lint.md lists what is "
                    "not), or move it to an end of the network",
                    share=context.share_of_access(layer.mac_bytes) if layer is not None else 0.0,
                )

    def _unsupported(self, error: UnsupportedOpsError, precision: Precision) -> Iterator[Finding]:
        for op in error.ops:
            yield Finding(
                rule=self.id,
                severity=Severity.ERROR,
                layer=op.module_path or op.node,
                value_name="",
                measure=f"ops without a lowering in {precision.value}",
                number=len(error.ops),
                bound=0,
                message=f"{op.op_type} cannot be lowered in {precision.value}: {op.reason}",
                advice=op.advice or "replace it in the model with ops that are supported",
            )
