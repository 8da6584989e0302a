"""The points that ONNX's Resize samples, for targets that have rules of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deploykit.graph.node_fields import FormError
from deploykit.graph.reading import constant_array, read_string
from deploykit.tensors import Array

if TYPE_CHECKING:
    import onnx_ir as ir


def resize_points(node: ir.Node, mode: str, size: int, output: int, axis: int) -> Array:
    """Coordinates in the input that the outputs along one axis sample (ONNX operator Resize).

    In float32, as ONNX Runtime computes them: on the edge between two pixels its rounding decides.

    Args:
        node: A canonical Resize.
        mode: ``nearest`` or ``linear``.
        size: Length of the axis in the input.
        output: Length of the axis in the output.
        axis: 0 for height, 1 for width.

    Raises:
        FormError: another coordinate rule.
    """
    rule = read_string(node, "coordinate_transformation_mode", "half_pixel")
    x = np.arange(output, dtype=np.float32)
    scale = np.float32(output) / np.float32(size)
    scales = constant_array(node.inputs[2]) if len(node.inputs) > 2 else None
    if scales is not None and scales.size:
        scale = np.float32(scales.reshape(-1)[2 + axis])
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
