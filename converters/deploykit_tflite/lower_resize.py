"""Resize: RESIZE_BILINEAR and RESIZE_NEAREST_NEIGHBOR, with the flags that sample the same points.

ONNX has many coordinate rules, TFLite three, named by two flags. Sizes are static, so the rules
are compared on the very coordinates that this node samples, and the first that agrees is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from deploykit.graph.node_fields import FormError
from deploykit.graph.reading import read_int, read_string
from deploykit.graph.resize_points import resize_points
from deploykit.tensors import Array
from deploykit_tflite.lowering_context import TABLE, LoweringContext

if TYPE_CHECKING:
    import onnx_ir as ir

_Flags = tuple[bool, bool]  # align_corners, half_pixel_centers
_FLAGS: tuple[_Flags, ...] = ((False, False), (False, True), (True, False))


@TABLE.register("Resize")
def lower_resize(node: ir.Node, context: LoweringContext) -> None:
    """RESIZE_BILINEAR or RESIZE_NEAREST_NEIGHBOR."""
    shape, output = context.shape(node), context.output_shape(node)
    mode = read_string(node, "mode", "nearest")
    if len(shape) != 4 or shape[:2] != output[:2] or mode not in ("nearest", "linear"):
        raise FormError(
            f"mode {mode} from {shape} to {output}",
            "resize height and width only, by nearest or bilinear",
        )
    if read_int(node, "antialias", 0):
        raise FormError("an antialiased resize", "resize without antialias")
    flags = _matching_flags(node, mode, shape[2:], output[2:])
    if flags is None:
        rule = read_string(node, "coordinate_transformation_mode", "half_pixel")
        raise FormError(
            f"{mode} with coordinate rule '{rule}' from {shape[2:]} to {output[2:]}: "
            "no flags of the format sample the same points",
            "use half_pixel (align_corners=False) or align_corners",
        )
    source = context.input(node)
    target = context.output(node, params=context.graph.tensors[source].quantization)
    name = "Bilinear" if mode == "linear" else "NearestNeighbor"
    code = "RESIZE_BILINEAR" if mode == "linear" else "RESIZE_NEAREST_NEIGHBOR"
    context.emit(
        code,
        (source, context.graph.add_integers("size", output[2:])),
        (target,),
        f"Resize{name}Options",
        alignCorners=flags[0],
        halfPixelCenters=flags[1],
    )


def _matching_flags(
    node: ir.Node, mode: str, size: Sequence[int], output: Sequence[int]
) -> _Flags | None:
    wanted = [resize_points(node, mode, size[i], output[i], i) for i in (0, 1)]
    for flags in _FLAGS:
        have = [_tflite_points(mode, size[i], output[i], flags) for i in (0, 1)]
        if all(np.allclose(w, h, atol=1e-5) for w, h in zip(wanted, have, strict=True)):
            return flags
    return None


def _tflite_points(mode: str, size: int, output: int, flags: _Flags) -> Array:
    """Coordinates that TFLite's kernels sample; in float32, as they compute."""
    align, half = flags
    x = np.arange(output, dtype=np.float32)
    scale = np.float32(size) / np.float32(output)
    if align and output > 1:
        scale = np.float32(size - 1) / np.float32(output - 1)
    if mode == "linear":
        points = (x + np.float32(0.5)) * scale - np.float32(0.5) if half else x * scale
        return np.asarray(points).clip(0, size - 1)
    points = (x + np.float32(0.5)) * scale if half else x * scale
    rounded = np.floor(points + np.float32(0.5)) if align else np.floor(points)
    return np.asarray(rounded).clip(0, size - 1)
