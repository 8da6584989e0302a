"""Whole numbers of a layer's rows as the integers that are stored."""

from __future__ import annotations

import numpy as np

from deploykit.tensors import Array, QuantParams
from deploykit_quantize.weighted_layer import WeightedLayer


def integers_of_rows(layer: WeightedLayer, rows: Array, params: QuantParams) -> Array:
    """From steps around the zero point, (groups, rows, n), to the dtype, in ONNX's layout."""
    return np.ascontiguousarray(layer.from_rows(rows + params.zero_point[0]).astype(params.dtype))
