"""Resize: the op of MIL that samples the very same points, or the sampling written out.

MIL's modes are compared with ONNX's rule on the coordinates that this node samples (both are
published as formulas: ONNX operator Resize; MIL ``resize_bilinear``). Where none agrees, nearest
is a ``gather`` along each axis, and linear interpolation, being linear, a ``matmul`` with a
constant matrix along each axis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deploykit.graph.node_fields import FormError
from deploykit.graph.reading import read_int, read_string
from deploykit.graph.resize_points import resize_points
from deploykit.tensors import Array
from deploykit_coreml.lowering_context import TABLE, LoweringContext
from deploykit_coreml.sample_points import bilinear_points, interpolation_matrix

if TYPE_CHECKING:
    import onnx_ir as ir

_MODES = ("UNALIGN_CORNERS", "STRICT_ALIGN_CORNERS", "DEFAULT")


@TABLE.register("Resize")
def lower_resize(node: ir.Node, context: LoweringContext) -> None:
    """upsample_nearest_neighbor, resize_bilinear, gather or matmul."""
    shape, target = context.shape(node), context.output_shape(node)
    mode = read_string(node, "mode", "nearest")
    if len(shape) != 4 or shape[:2] != target[:2] or mode not in ("nearest", "linear"):
        raise FormError(
            f"mode {mode} from {shape} to {target}",
            "resize height and width only, by nearest or bilinear",
        )
    if read_int(node, "antialias", 0):
        raise FormError("an antialiased resize", "resize without antialias")
    points = [resize_points(node, mode, shape[i + 2], target[i + 2], i) for i in (0, 1)]
    if mode == "nearest":
        _lower_nearest(node, context, points)
    else:
        _lower_linear(node, context, points)


def _lower_nearest(node: ir.Node, context: LoweringContext, points: list[Array]) -> None:
    shape, target = context.shape(node), context.output_shape(node)
    x, name = context.read(node, 0), context.output_name(node)
    factors = [target[axis] // shape[axis] for axis in (2, 3)]
    repeated = [np.arange(target[axis]) // max(factors[axis - 2], 1) for axis in (2, 3)]
    whole = all(target[axis] == shape[axis] * factors[axis - 2] for axis in (2, 3))
    if whole and all(np.array_equal(p, r) for p, r in zip(points, repeated, strict=True)):
        context.result(
            node,
            "upsample_nearest_neighbor",
            x=x,
            scale_factor_height=factors[0],
            scale_factor_width=factors[1],
        )
        return
    rows = context.emit("gather", f"{name}_rows", x=x, indices=points[0].astype(np.int32), axis=2)
    columns = points[1].astype(np.int32)
    context.bind(node, context.emit("gather", name, x=rows, indices=columns, axis=3))


def _lower_linear(node: ir.Node, context: LoweringContext, points: list[Array]) -> None:
    shape, target = context.shape(node), context.output_shape(node)
    x = context.read(node, 0)
    for mode in _MODES:
        offered = [bilinear_points(mode, shape[axis], target[axis]) for axis in (2, 3)]
        if all(np.allclose(p, o, atol=1e-9) for p, o in zip(points, offered, strict=True)):
            context.result(
                node,
                "resize_bilinear",
                x=x,
                target_size_height=target[2],
                target_size_width=target[3],
                sampling_mode=mode,
            )
            return
    name = context.output_name(node)
    rows, columns = (
        context.constant(interpolation_matrix(points[i], shape[2 + i]), "interpolation")
        for i in (0, 1)
    )
    # (rows x) columns^T, the same matrices for every channel.
    high = context.emit("matmul", f"{name}_rows", x=rows[None, None], y=x)
    wide = context.emit("matmul", name, x=high, y=columns[None, None], transpose_y=True)
    context.bind(node, wide)
