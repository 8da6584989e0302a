"""Resizing: sampling between pixels by MIL's formulas."""

from __future__ import annotations

import numpy as np

from deploykit.tensors import Array
from deploykit_coreml.operation_table import Parameters, UnknownFormError, operation
from deploykit_coreml.sample_points import bilinear_points, interpolation_matrix


@operation("resize_bilinear", reads="x target_size_height target_size_width sampling_mode")
def compute_resize_bilinear(parameters: Parameters) -> Array:
    """Bilinear samples at the points of the mode."""
    x = parameters.real()
    sizes = [parameters.integer(f"target_size_{side}") for side in ("height", "width")]
    mode = parameters.text("sampling_mode") if parameters.has("sampling_mode") else "DEFAULT"
    try:
        rows, columns = (
            interpolation_matrix(bilinear_points(mode, x.shape[axis], size), x.shape[axis])
            for axis, size in zip((-2, -1), sizes, strict=True)
        )
    except LookupError as error:
        raise UnknownFormError(str(error)) from error
    result: Array = rows @ x @ columns.T
    return result


@operation("upsample_nearest_neighbor", reads="x scale_factor_height scale_factor_width")
def compute_upsample_nearest(parameters: Parameters) -> Array:
    """Each pixel repeated a whole number of times."""
    x = parameters.real()
    for axis, side in ((-2, "height"), (-1, "width")):
        factor = parameters.number(f"scale_factor_{side}")
        if factor != int(factor) or factor < 1:
            raise UnknownFormError(f"a scale factor of {factor:g}")
        x = np.repeat(x, int(factor), axis=axis)
    return x
