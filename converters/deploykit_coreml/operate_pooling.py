"""Pooling and reductions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from deploykit.tensors import Array
from deploykit_coreml.operate_convolution import two, window_pads, windows
from deploykit_coreml.operation_table import Parameters, UnknownFormError, operation

_WINDOW = "x kernel_sizes strides pad_type pad ceil_mode"
_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "reduce_mean": np.mean,
    "reduce_max": np.max,
    "reduce_sum": np.sum,
}


def _views(parameters: Parameters, x: Array, fill: float) -> list[Array]:
    if parameters.has("ceil_mode"):
        parameters.require("ceil_mode", False)
    if x.ndim != 4:
        raise UnknownFormError(f"pooling of {x.ndim - 2} dimensions")
    kernel, strides = two(parameters, "kernel_sizes"), two(parameters, "strides")
    padded = np.pad(x, [(0, 0), (0, 0), *window_pads(parameters)], constant_values=fill)
    return windows(padded, kernel, strides, (1, 1))


@operation("max_pool", reads=_WINDOW)
def compute_max_pool(parameters: Parameters) -> Array:
    """The largest element of each window; padding counts as nothing."""
    views = _views(parameters, parameters.real(), -np.inf)
    result = views[0].copy()
    for view in views[1:]:
        np.maximum(result, view, out=result)
    return result


@operation("avg_pool", reads=f"{_WINDOW} exclude_padding_from_average")
def compute_avg_pool(parameters: Parameters) -> Array:
    """The mean of each window, with or without the padding."""
    x = parameters.real()
    excludes = parameters.has("exclude_padding_from_average") and parameters.flag(
        "exclude_padding_from_average"
    )
    views = _views(parameters, x, 0.0)
    total = np.zeros(views[0].shape, np.float32)
    for view in views:
        total += view
    if not excludes:
        return total / np.float32(len(views))
    counts = _views(parameters, np.ones((1, 1, *x.shape[2:]), np.float32), 0.0)
    share: Array = total / np.sum(counts, axis=0, dtype=np.float32)
    return share


@operation(*_REDUCTIONS, reads="x axes keep_dims")
def compute_reduction(parameters: Parameters) -> Array:
    """Mean, maximum or sum over axes."""
    x = parameters.real()
    axes = tuple(parameters.integers("axes")) if parameters.has("axes") else None
    keeps = parameters.has("keep_dims") and parameters.flag("keep_dims")
    reduced = _REDUCTIONS[parameters.op.type](x, axis=axes, keepdims=keeps)
    return np.asarray(reduced, np.float32)
