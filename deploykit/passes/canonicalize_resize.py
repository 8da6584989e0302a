"""Resize: sizes for every axis, every attribute that the mode reads explicit.

1. ``scales`` s: sizes ``floor(in s)``. The kernels map coordinates with the given scale, and with
   ``out / in`` where sizes are given, so this is the same only where ``in s`` is a whole number;
   otherwise the node stays.
2. ``axes``: sizes for the axes that are not named are those of the input.
3. ``pytorch_half_pixel`` is ``half_pixel`` wherever no output axis has length 1.
4. ``keep_aspect_ratio_policy``, ``antialias``, ``cubic`` and ``tf_crop_and_resize`` stay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploykit.graph.editing import GraphEditor, set_attributes, set_inputs
from deploykit.graph.reading import constant_array, input_at, known_shape, read_int, read_string
from deploykit.passes.base import Findings
from deploykit.passes.canonical_rule import rule_for

if TYPE_CHECKING:
    import onnx_ir as ir

_WHOLE = 1e-4


@rule_for("Resize")
def canonicalize_resize(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    """All cases."""
    reason = _why_not(node)
    if reason:
        findings.skipped(node, reason)
        return
    value = node.inputs[0]
    source, target = known_shape(value), known_shape(node.outputs[0])
    transform = read_string(node, "coordinate_transformation_mode", "half_pixel")
    if transform == "pytorch_half_pixel":
        changed = [i for i, (a, b) in enumerate(zip(source, target, strict=True)) if a != b]
        if any(target[i] == 1 for i in changed):
            findings.skipped(node, "pytorch_half_pixel to a length of 1")
            return
        transform = "half_pixel"
    mode = read_string(node, "mode", "nearest")
    nearest_mode = read_string(node, "nearest_mode", "round_prefer_floor")
    sizes = editor.ints(f"{node.outputs[0].name}.sizes", target)
    set_inputs(node, [value, None, None, sizes])
    node.attributes.clear()
    set_attributes(node, mode=mode, coordinate_transformation_mode=transform)
    if mode == "nearest":
        set_attributes(node, nearest_mode=nearest_mode)
    findings.matched(node, "Resize > sizes for every axis")


def _why_not(node: ir.Node) -> str:
    mode = read_string(node, "mode", "nearest")
    if mode not in ("nearest", "linear"):
        return f"Resize with mode {mode}"
    if read_int(node, "antialias", 0):
        return "Resize with antialias"
    if read_string(node, "keep_aspect_ratio_policy", "stretch") != "stretch":
        return "Resize that keeps the aspect ratio"
    if read_string(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        return "Resize with tf_crop_and_resize"
    given = input_at(node, 2)
    if given is not None and known_shape(given) != (0,):
        scales = constant_array(given)
        if scales is None:
            return "the scales of Resize are computed"
        source, target = known_shape(node.inputs[0]), known_shape(node.outputs[0])
        axes = node.attributes.get("axes")
        named = range(len(source)) if axes is None else axes.as_ints()
        for axis, scale in zip(named, scales, strict=True):
            if abs(source[axis] * float(scale) - target[axis]) > _WHOLE * target[axis]:
                return f"a scale of {float(scale):g} on a length of {source[axis]}: no whole number"
    return ""
