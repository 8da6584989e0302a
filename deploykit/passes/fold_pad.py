"""Pad into the window op that reads it.

1. Zeros before Conv: ``pads' = pads + pad``, since Conv pads with zeros.
2. Zeros before AveragePool that counts padding (or has none of its own and is then made to count).
3. -inf (or the lowest float) before MaxPool, which pads with that.

Every reader of the Pad is looked at by itself; the Pad goes when none is left. Reasons: another
mode or value; a pad of the batch or channel axis; a negative pad; an AveragePool that pads without
counting; a pool pad that would reach the window's size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from deploykit.graph.editing import GraphEditor, set_attributes, set_input
from deploykit.graph.reading import (
    constant_ints,
    constant_scalar,
    input_at,
    is_op,
    read_int,
    read_ints,
    read_string,
)
from deploykit.passes.base import Findings, Pass, PassResult

if TYPE_CHECKING:
    import onnx_ir as ir

_LOWEST = float(np.finfo(np.float32).min)


@dataclass(frozen=True)
class FoldPad(Pass):
    """See the module's docstring."""

    requires: ClassVar[frozenset[str]] = frozenset({"canonical", "static_shapes"})
    ensures: ClassVar[frozenset[str]] = frozenset({"pads_folded"})
    breaks: ClassVar[frozenset[str]] = frozenset({"no_dead_code"})

    def apply(self, model: ir.Model) -> PassResult:
        """Fold every Pad into each of its readers that can take it."""
        findings = Findings(self.name)
        editor = GraphEditor(model.graph)
        for node in model.graph:
            if is_op(node, "Pad"):
                _fold(node, editor, findings)
        return findings.result()


def _fold(pad: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    pads = constant_ints(input_at(pad, 1))
    reason = _why_not_pad(pad, pads)
    if reason or pads is None:
        findings.skipped(pad, reason)
        return
    spatial = (pads[2], pads[3], pads[6], pads[7])
    for use in pad.outputs[0].uses():
        reader = use.node
        reason = _why_not_reader(pad, reader, spatial, use.idx)
        if reason:
            findings.skipped(pad, reason)
            continue
        own = read_ints(reader, "pads", (0, 0, 0, 0))
        set_attributes(reader, pads=tuple(a + b for a, b in zip(own, spatial, strict=True)))
        if reader.op_type == "AveragePool":
            set_attributes(reader, count_include_pad=1)
        set_input(reader, 0, pad.inputs[0])
        findings.matched(pad, f"into the {reader.op_type} behind it")
    editor.remove_if_unread(pad)


def _why_not_pad(pad: ir.Node, pads: tuple[int, ...] | None) -> str:
    mode = read_string(pad, "mode", "constant")
    if pads is None:
        return "the pads are computed"
    if mode != "constant":
        return f"it pads with mode {mode}"
    if len(pads) != 8:
        return f"it pads a value of rank {len(pads) // 2}, not a feature map"
    if any(pads[i] for i in (0, 1, 4, 5)):
        return "it pads the batch or channel axis"
    if min(pads) < 0:
        return "a negative pad crops"
    return ""


def _why_not_reader(pad: ir.Node, reader: ir.Node, spatial: tuple[int, ...], place: int) -> str:
    value = 0.0 if input_at(pad, 2) is None else constant_scalar(input_at(pad, 2))
    if not is_op(reader, "Conv", "AveragePool", "MaxPool") or place != 0:
        return f"{reader.op_type} reads it, which has no pads"
    own = read_ints(reader, "pads", (0, 0, 0, 0))
    if reader.op_type == "MaxPool":
        if value is None or value > _LOWEST:
            return f"it pads with {value}, and MaxPool with -inf"
    elif value != 0.0:
        return f"it pads with {value}, and {reader.op_type} with 0"
    if read_int(reader, "ceil_mode", 0):
        return f"{reader.op_type} rounds its size up"
    if (
        reader.op_type == "AveragePool"
        and any(own)
        and not read_int(reader, "count_include_pad", 0)
    ):
        return "AveragePool has pads of its own that it does not count"
    if reader.op_type != "Conv":
        kernel = read_ints(reader, "kernel_shape", ())
        if any(own[i] + spatial[i] >= kernel[i % 2] for i in range(4)):
            return f"the pads would reach the window of {reader.op_type}"
    return ""
