"""Resize: Interp, where it samples the same points.

Sizes are static, so ONNX's coordinate rules and ncnn's are compared on the very coordinates that
a node samples, and the first of ncnn's that agrees is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deploykit.graph.node_fields import FormError
from deploykit.graph.reading import read_int, read_string
from deploykit.graph.resize_points import resize_points
from deploykit.tensors import Array
from deploykit_ncnn.layer_graph import Param
from deploykit_ncnn.lowering_context import TABLE, LoweringContext

if TYPE_CHECKING:
    import onnx_ir as ir

_NEAREST, _BILINEAR = 1, 2


@TABLE.register("Resize")
def lower_resize(node: ir.Node, context: LoweringContext) -> None:
    """Interp of height and width."""
    shape, target = context.shape(node), context.output_shape(node)
    mode = read_string(node, "mode", "nearest")
    if len(shape) != 3 or shape[0] != target[0] or mode not in ("nearest", "linear"):
        raise FormError(
            f"mode {mode} from {shape} to {target}",
            "resize height and width only, by nearest or bilinear",
        )
    if read_int(node, "antialias", 0):
        raise FormError("an antialiased resize", "resize without antialias")
    align = _matching_rule(node, mode, shape[1:], target[1:])
    if align is None:
        rule = read_string(node, "coordinate_transformation_mode", "half_pixel")
        raise FormError(
            f"{mode} with coordinate rule '{rule}' from {shape[1:]} to {target[1:]}: Interp does "
            "not sample these points",
            "bilinear: half_pixel (align_corners=False) or align_corners; nearest: asymmetric",
        )
    params: dict[int, Param] = {0: _NEAREST if mode == "nearest" else _BILINEAR}
    params |= {3: target[1], 4: target[2]} | ({6: 1} if align else {})
    context.result(node, "Interp", [context.read(node, 0)], params)


def _matching_rule(
    node: ir.Node, mode: str, size: tuple[int, ...], output: tuple[int, ...]
) -> bool | None:
    """``align_corner`` of Interp; None if neither samples the node's points."""
    wanted = [resize_points(node, mode, size[i], output[i], i) for i in (0, 1)]
    for align in (False, True):
        have = [_ncnn_points(mode, a, b, align) for a, b in zip(size, output, strict=True)]
        if all(np.allclose(w, h, atol=1e-4) for w, h in zip(wanted, have, strict=True)):
            return align
    return None


def _ncnn_points(mode: str, size: int, output: int, align: bool) -> Array:
    """Coordinates that Interp samples; nearest in float32, as it computes, and never aligned."""
    if mode == "nearest":
        scale = np.float32(size) / np.float32(output)
        points = np.floor(np.arange(output, dtype=np.float32) * scale)
        return np.asarray(points).clip(0, size - 1)
    x = np.arange(output, dtype=np.float64)
    if align:
        points = x * (size - 1) / (output - 1) if output > 1 else 0 * x
    else:
        points = (x + 0.5) * (size / output) - 0.5
    return np.asarray(points).clip(0, size - 1)
