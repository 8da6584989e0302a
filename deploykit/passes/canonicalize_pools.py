"""Pools and reductions.

1. MaxPool and AveragePool: every attribute explicit, ``auto_pad`` replaced by pads.
2. ``ceil_mode``: the last window that reaches beyond the input becomes padding at the end. For
   MaxPool, and AveragePool that does not count padding, that is the same; where AveragePool counts
   padding the divisor would change, and the node stays.
3. A pool whose one window is the whole map, GlobalAveragePool and GlobalMaxPool: ReduceMean or
   ReduceMax over axes [2, 3], ``keepdims`` 1.
4. Reductions: axes a constant input, sorted and not negative; ``keepdims`` explicit; no axes means
   all of them, or none at all with ``noop_with_empty_axes``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploykit.graph.editing import GraphEditor, drop_attributes, set_attributes, set_inputs
from deploykit.graph.reading import (
    constant_ints,
    input_at,
    known_shape,
    read_int,
    read_ints,
    read_string,
)
from deploykit.passes.base import Findings
from deploykit.passes.canonical_rule import rule_for
from deploykit.passes.canonicalize_convolutions import explicit_pads

if TYPE_CHECKING:
    import onnx_ir as ir


def _to_reduction(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    rank = len(known_shape(node.inputs[0]))
    reduction = "ReduceMax" if node.op_type.endswith("MaxPool") else "ReduceMean"
    findings.matched(node, f"{node.op_type} over the whole map > {reduction}")
    axes = editor.ints(f"{node.outputs[0].name}.axes", range(2, rank))
    node.op_type = reduction
    node.attributes.clear()
    set_inputs(node, [node.inputs[0], axes])
    set_attributes(node, keepdims=1)
    if len(node.outputs) > 1:
        node.resize_outputs(1)


@rule_for("GlobalAveragePool", "GlobalMaxPool")
def canonicalize_global_pool(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    """Case 3."""
    _to_reduction(node, editor, findings)


@rule_for("MaxPool", "AveragePool")
def canonicalize_pool(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    """Cases 1 to 3."""
    shape = known_shape(node.inputs[0])
    kernel = read_ints(node, "kernel_shape", ())
    strides, dilations = read_ints(node, "strides", (1, 1)), read_ints(node, "dilations", (1, 1))
    if len(shape) != 4:
        findings.skipped(
            node, f"{node.op_type} over {len(shape) - 2} spatial axes: targets know two"
        )
        return
    if len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output()):
        findings.skipped(node, "the indices of MaxPool are read")
        return
    if any(d != 1 for d in dilations):
        findings.skipped(node, f"{node.op_type} with dilations {list(dilations)}")
        return
    if len(node.outputs) > 1:
        node.resize_outputs(1)
    pads = explicit_pads(node, shape[2:], kernel, strides, dilations)
    counted = read_int(node, "count_include_pad", 0)
    if read_string(node, "auto_pad", "NOTSET") != "NOTSET":
        findings.matched(node, "auto_pad > pads")
    if read_int(node, "ceil_mode", 0) and not _extend(node, findings, kernel, strides, pads):
        return
    whole = tuple(kernel) == shape[2:] and known_shape(node.outputs[0])[2:] == (1, 1)
    if whole and not any(pads):
        _to_reduction(node, editor, findings)
        return
    drop_attributes(node, "auto_pad", "storage_order", "count_include_pad")
    set_attributes(
        node, kernel_shape=kernel, strides=strides, dilations=(1, 1), pads=pads, ceil_mode=0
    )
    if node.op_type == "AveragePool":
        set_attributes(node, count_include_pad=counted)


def _extend(
    node: ir.Node,
    findings: Findings,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    pads: list[int],
) -> bool:
    # Pads at the end until the rounded-down size is the rounded-up one.
    extents, wanted = known_shape(node.inputs[0])[2:], known_shape(node.outputs[0])[2:]
    extra = [
        max(0, (wanted[i] - 1) * strides[i] + kernel[i] - extents[i] - pads[i] - pads[2 + i])
        for i in range(2)
    ]
    if any(extra) and node.op_type == "AveragePool" and read_int(node, "count_include_pad", 0):
        findings.skipped(node, "ceil_mode with count_include_pad: padding would be counted")
        return False
    if any(pads[2 + i] + extra[i] >= kernel[i] for i in range(2)):
        findings.skipped(node, "ceil_mode gives a window that lies in the padding")
        return False
    pads[2:] = [pads[2 + i] + extra[i] for i in range(2)]
    findings.matched(node, "ceil_mode > pads at the end")
    return True


@rule_for("ReduceMean", "ReduceMax", "ReduceSum", "ReduceMin", "ReduceProd")
def canonicalize_reduction(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    """Case 4."""
    value, axes_value = node.inputs[0], input_at(node, 1)
    rank = len(known_shape(value))
    axes = constant_ints(axes_value) if axes_value is not None else read_ints(node, "axes", ())
    if axes is None:
        findings.skipped(node, f"the axes of {node.op_type} are computed")
        return
    if not axes and read_int(node, "noop_with_empty_axes", 0):
        node.op_type = "Identity"
        node.attributes.clear()
        set_inputs(node, [value])
        return
    wanted = tuple(sorted(a % rank for a in axes)) or tuple(range(rank))
    if axes_value is None or axes != wanted:
        axes_value = editor.ints(f"{node.outputs[0].name}.axes", wanted)
        findings.matched(node, "axes > a constant input, sorted and not negative")
    set_inputs(node, [value, axes_value])
    drop_attributes(node, "axes", "noop_with_empty_axes")
    set_attributes(node, keepdims=read_int(node, "keepdims", 1))
