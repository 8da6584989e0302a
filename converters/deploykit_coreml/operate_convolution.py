"""conv and conv_transpose."""

from __future__ import annotations

import numpy as np

from deploykit.tensors import Array
from deploykit_coreml.operation_table import Parameters, UnknownFormError, operation


def window_pads(parameters: Parameters) -> list[tuple[int, int]]:
    """(before, after) of height and width, from ``pad_type`` and ``pad``.

    Raises:
        UnknownFormError: a type other than ``custom`` and ``valid``.
    """
    kind = parameters.text("pad_type")
    pads = parameters.integers("pad") if parameters.has("pad") else [0, 0, 0, 0]
    if kind not in ("custom", "valid") or len(pads) != 4:
        raise UnknownFormError(f"pad_type {kind!r} with {len(pads)} pads")
    if kind == "valid":
        return [(0, 0), (0, 0)]
    return [(pads[0], pads[1]), (pads[2], pads[3])]


def two(parameters: Parameters, name: str) -> tuple[int, int]:
    """A pair of integers; 1 and 1 where it is omitted.

    Raises:
        UnknownFormError: another number of them.
    """
    values = parameters.integers(name) if parameters.has(name) else [1, 1]
    if len(values) != 2:
        raise UnknownFormError(f"{name} of {len(values)} dimensions")
    return values[0], values[1]


def windows(
    image: Array, kernel: tuple[int, int], strides: tuple[int, int], dilations: tuple[int, int]
) -> list[Array]:
    """For each element of a window, what it sees: views (n, C, H, W), row by row."""
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    sizes = [
        (length - extent) // stride + 1
        for length, extent, stride in zip(image.shape[2:], extents, strides, strict=True)
    ]
    views = []
    for row in range(kernel[0]):
        for column in range(kernel[1]):
            top, left = row * dilations[0], column * dilations[1]
            views.append(
                image[
                    :,
                    :,
                    top : top + (sizes[0] - 1) * strides[0] + 1 : strides[0],
                    left : left + (sizes[1] - 1) * strides[1] + 1 : strides[1],
                ]
            )
    return views


@operation("conv", reads="x weight bias strides pad_type pad dilations groups")
def compute_conv(parameters: Parameters) -> Array:
    """Cross-correlation of (n, C, H, W) with weights (O, C / groups, kH, kW)."""
    x, weight = parameters.real(), parameters.real("weight")
    groups = parameters.integer("groups") if parameters.has("groups") else 1
    pads = window_pads(parameters)
    if x.ndim != 4 or weight.ndim != 4:
        raise UnknownFormError(f"a convolution of {x.ndim - 2} dimensions")
    if any(map(any, pads)):
        x = np.pad(x, [(0, 0), (0, 0), *pads])
    kernel = (weight.shape[2], weight.shape[3])
    views = windows(x, kernel, two(parameters, "strides"), two(parameters, "dilations"))
    if weight.shape[1] == 1 and groups == x.shape[1]:
        result = _depthwise(views, weight)
    else:
        result = _grouped(views, weight, groups)
    if parameters.has("bias"):
        result += parameters.real("bias").reshape(1, -1, 1, 1)
    return result


def _depthwise(views: list[Array], weight: Array) -> Array:
    repeats = weight.shape[0] // views[0].shape[1]
    taps = weight.reshape(weight.shape[0], -1)
    result: Array = np.zeros((views[0].shape[0], weight.shape[0], *views[0].shape[2:]), np.float32)
    for index, view in enumerate(views):
        seen = view if repeats == 1 else np.repeat(view, repeats, axis=1)
        result += seen * taps[:, index].reshape(1, -1, 1, 1)
    return result


def _grouped(views: list[Array], weight: Array, groups: int) -> Array:
    count, channels, height, width = views[0].shape
    inner, outer = channels // groups, weight.shape[0] // groups
    matrices = weight.reshape(groups, outer, -1)
    results = []
    for sample in range(count):
        # (C, taps, H W): each channel's taps one behind the other, as the weights have them.
        seen = np.stack([v[sample].reshape(channels, -1) for v in views], axis=1)
        columns = seen.reshape(groups, inner * len(views), height * width)
        results.append((matrices @ columns).reshape(groups * outer, height, width))
    return np.stack(results)


@operation(
    "conv_transpose",
    reads="x weight bias strides pad_type pad dilations groups output_shape",
)
def compute_conv_transpose(parameters: Parameters) -> Array:
    """Transposed convolution of (n, C, H, W) with weights (C, O / groups, kH, kW)."""
    x, weight = parameters.real(), parameters.real("weight")
    groups = parameters.integer("groups") if parameters.has("groups") else 1
    strides, dilations = two(parameters, "strides"), two(parameters, "dilations")
    (top, bottom), (left, right) = window_pads(parameters)
    count, channels, height, width = x.shape
    outer, kernel = weight.shape[1], weight.shape[2:]
    full = [
        (length - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1
        for i, length in enumerate((height, width))
    ]
    result: Array = np.zeros((count, groups * outer, *full), np.float32)
    split = x.reshape(count, groups, channels // groups, height * width)
    grouped = weight.reshape(groups, channels // groups, outer, *kernel)
    for row in range(kernel[0]):
        for column in range(kernel[1]):
            part = grouped[..., row, column].swapaxes(1, 2) @ split
            begin, left_edge = row * dilations[0], column * dilations[1]
            result[
                :,
                :,
                begin : begin + (height - 1) * strides[0] + 1 : strides[0],
                left_edge : left_edge + (width - 1) * strides[1] + 1 : strides[1],
            ] += part.reshape(count, groups * outer, height, width)
    result = result[:, :, top : full[0] - bottom, left : full[1] - right]
    if parameters.has("output_shape"):
        wanted = parameters.integers("output_shape")
        if wanted != list(result.shape):
            raise UnknownFormError(f"output_shape {wanted} where the pads give {result.shape}")
    if parameters.has("bias"):
        result = result + parameters.real("bias").reshape(1, -1, 1, 1)
    return result
