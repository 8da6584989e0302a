"""linear and matmul."""

from __future__ import annotations

import numpy as np

from deploykit.tensors import Array
from deploykit_coreml.operation_table import Parameters, operation


@operation("linear", reads="x weight bias")
def compute_linear(parameters: Parameters) -> Array:
    """x weight^T + bias."""
    result: Array = parameters.real() @ parameters.real("weight").T
    if parameters.has("bias"):
        result = result + parameters.real("bias")
    return result


@operation("matmul", reads="x y transpose_x transpose_y")
def compute_matmul(parameters: Parameters) -> Array:
    """x y, with numpy's broadcasting of the axes before the last two."""
    x, y = parameters.real("x"), parameters.real("y")
    if parameters.has("transpose_x") and parameters.flag("transpose_x"):
        x = np.swapaxes(x, -1, -2)
    if parameters.has("transpose_y") and parameters.flag("transpose_y"):
        y = np.swapaxes(y, -1, -2)
    product: Array = x @ y
    return product
