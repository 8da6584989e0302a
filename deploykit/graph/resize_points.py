"""The points that ONNX's Resize samples, for targets that have rules of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deploykit.graph.node_fields import FormError, needed_value, shape_of
from deploykit.graph.reading import constant_array, input_at, read_ints, read_string
from deploykit.tensors import Array

if TYPE_CHECKING:
    import onnx_ir as ir


def resize_points(node: ir.Node, mode: str, size: int, output: int, axis: int) -> Array:
    """Coordinates in the input that the outputs along one axis sample (ONNX operator Resize).

    In float32, as ONNX Runtime computes them: on the edge between two pixels its rounding decides.

    Args:
        node: A Resize, canonical or with scales or an aspect ratio policy.
        mode: ``nearest`` or ``linear``.
        size: Length of the axis in the input.
        output: Length of the axis in the output.
        axis: 0 for height, 1 for width.

    Raises:
        FormError: another coordinate rule.
    """
    rule = read_string(node, "coordinate_transformation_mode", "half_pixel")
    x = np.arange(output, dtype=np.float32)
    scale = _given_scale(node, 2 + axis)
    if scale is None:
        scale = np.float32(output) / np.float32(size)
    if rule == "half_pixel" or (rule == "pytorch_half_pixel" and output > 1):
        points = (x + np.float32(0.5)) / scale - np.float32(0.5)
    elif rule == "align_corners":
        points = x * np.float32(size - 1) / np.float32(output - 1) if output > 1 else 0 * x
    elif rule == "asymmetric":
        points = x / scale
    elif rule == "pytorch_half_pixel":
        points = 0 * x
    else:
        raise FormError(
            f"coordinate rule '{rule}'",
            "use half_pixel, pytorch_half_pixel, align_corners or asymmetric",
        )
    if mode == "linear":
        return points.clip(0, size - 1)
    rounding = read_string(node, "nearest_mode", "round_prefer_floor")
    rounded = {
        "round_prefer_floor": np.ceil(points - np.float32(0.5)),
        "round_prefer_ceil": np.floor(points + np.float32(0.5)),
        "floor": np.floor(points),
        "ceil": np.ceil(points),
    }[rounding]
    return np.asarray(rounded).clip(0, size - 1)


def _given_scale(node: ir.Node, axis: int) -> np.float32 | None:
    """The scale that a node names for an axis, or that its aspect ratio policy gives; or None."""
    shape = shape_of(needed_value(node, 0))
    axes = [a % len(shape) for a in read_ints(node, "axes", tuple(range(len(shape))))]
    scales, sizes = (constant_array(input_at(node, i)) for i in (2, 3))
    given_scales = input_at(node, 2)
    if scales is None and given_scales is not None and shape_of(given_scales) != (0,):
        raise FormError("its scales are computed, not constant", "give a constant size")
    if scales is not None and scales.size:
        given = dict(zip(axes, scales.reshape(-1), strict=True))
        return np.float32(given[axis]) if axis in given else None
    policy = read_string(node, "keep_aspect_ratio_policy", "stretch")
    if policy == "stretch" or sizes is None or axis not in axes:
        return None
    ratios = [
        np.float32(n) / np.float32(shape[a]) for a, n in zip(axes, sizes.reshape(-1), strict=True)
    ]
    return min(ratios) if policy == "not_larger" else max(ratios)
