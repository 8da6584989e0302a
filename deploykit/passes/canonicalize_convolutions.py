"""Conv and ConvTranspose: every attribute explicit, ``auto_pad`` replaced by pads.

1. ``SAME_UPPER`` and ``SAME_LOWER`` of Conv: with ``out = ceil(in / stride)`` the total padding is
   ``max(0, (out - 1) stride + dilation (kernel - 1) + 1 - in)``; the odd one goes to the end
   (UPPER) or to the start (LOWER). ``VALID`` is no padding. (ONNX operator specification, Conv.)
2. ``output_shape`` and ``auto_pad`` of ConvTranspose: the total padding is
   ``stride (in - 1) + output_padding + dilation (kernel - 1) + 1 - out``, split likewise. An output
   that is larger than the kernel reaches has rows and columns of zeros at its end: output_padding,
   which ONNX has below the stride or dilation; a longer rest stays.
3. A convolution over one or three spatial axes, or with computed weights, stays: no target has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from deploykit.graph.editing import GraphEditor, drop_attributes, set_attributes
from deploykit.graph.reading import (
    is_constant,
    known_shape,
    producer_of,
    read_int,
    read_ints,
    read_string,
)
from deploykit.passes.base import Findings
from deploykit.passes.canonical_rule import rule_for

if TYPE_CHECKING:
    import onnx_ir as ir


def same_pads(
    extents: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    *,
    upper: bool,
) -> list[int]:
    """Explicit pads of ``SAME_UPPER`` (or ``SAME_LOWER``): all starts, then all ends."""
    totals = [
        max(0, (-(-extent // stride) - 1) * stride + dilation * (size - 1) + 1 - extent)
        for extent, size, stride, dilation in zip(extents, kernel, strides, dilations, strict=True)
    ]
    return _split_pads(totals, upper=upper)


def _split_pads(totals: Sequence[int], *, upper: bool) -> list[int]:
    small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return [*small, *large] if upper else [*large, *small]


def explicit_pads(
    node: ir.Node,
    extents: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> list[int]:
    """The pads of a Conv or a pool, whatever its ``auto_pad``."""
    mode = read_string(node, "auto_pad", "NOTSET")
    if mode == "VALID":
        return [0] * (2 * len(kernel))
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        return same_pads(extents, kernel, strides, dilations, upper=mode == "SAME_UPPER")
    return list(read_ints(node, "pads", (0,) * (2 * len(kernel))))


def _refuses(node: ir.Node, findings: Findings) -> bool:
    value, weights = node.inputs[0], node.inputs[1]
    rank = len(known_shape(value))
    if rank != 4:
        findings.skipped(node, f"{node.op_type} over {rank - 2} spatial axes: targets know two")
        return True
    if not is_constant(weights) and producer_of(weights, "DequantizeLinear") is None:
        findings.skipped(node, f"the weights of {node.op_type} are computed")
    return False


@rule_for("Conv")
def canonicalize_conv(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    """Cases 1 and 3."""
    if _refuses(node, findings):
        return
    kernel = known_shape(node.inputs[1])[2:]
    strides, dilations = read_ints(node, "strides", (1, 1)), read_ints(node, "dilations", (1, 1))
    extents = known_shape(node.inputs[0])[2:]
    pads = explicit_pads(node, extents, kernel, strides, dilations)
    if read_string(node, "auto_pad", "NOTSET") != "NOTSET":
        findings.matched(node, "auto_pad > pads")
    drop_attributes(node, "auto_pad")
    set_attributes(
        node,
        kernel_shape=kernel,
        strides=strides,
        dilations=dilations,
        pads=pads,
        group=read_int(node, "group", 1),
    )


@rule_for("ConvTranspose")
def canonicalize_conv_transpose(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    """Cases 2 and 3."""
    if _refuses(node, findings):
        return
    kernel = known_shape(node.inputs[1])[2:]
    strides, dilations = read_ints(node, "strides", (1, 1)), read_ints(node, "dilations", (1, 1))
    padding = read_ints(node, "output_padding", (0, 0))
    mode = read_string(node, "auto_pad", "NOTSET")
    pads = list(read_ints(node, "pads", (0, 0, 0, 0)))
    if mode == "VALID":
        pads = [0, 0, 0, 0]
    elif mode != "NOTSET" or "output_shape" in node.attributes:
        extents, wanted = known_shape(node.inputs[0])[2:], known_shape(node.outputs[0])[2:]
        totals = [
            strides[i] * (extents[i] - 1)
            + padding[i]
            + dilations[i] * (kernel[i] - 1)
            + 1
            - wanted[i]
            for i in range(2)
        ]
        padding = tuple(p + max(0, -t) for p, t in zip(padding, totals, strict=True))
        totals = [max(0, t) for t in totals]
        if any(p >= max(strides[i], dilations[i]) for i, p in enumerate(padding)):
            findings.skipped(node, f"output_shape {wanted} is larger than the kernel reaches")
            return
        pads = _split_pads(totals, upper=mode == "SAME_UPPER")
        findings.matched(node, "auto_pad, output_shape > pads")
    drop_attributes(node, "auto_pad", "output_shape")
    set_attributes(
        node,
        kernel_shape=kernel,
        strides=strides,
        dilations=dilations,
        pads=pads,
        output_padding=padding,
        group=read_int(node, "group", 1),
    )
