"""Weights of convolutions and linear layers: floats, int8 behind a scale, or a palette.

floats      a constant in the type that the program computes in
int8        constexpr_affine_dequantize: scale (integers - zero_point), one scale an output
            channel. The integers are those of the quantized stage; in a w8 package of a float
            stage they are chosen here, against scales that float16 holds exactly
palette     constexpr_lut_to_dense: indices into 2^bits values, packed
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from deploykit.graph.node_fields import FormError, needed_value
from deploykit.graph.reading import constant_array
from deploykit.tensors import Array, QuantParams
from deploykit_coreml.fit_palette import fit_palette, nearest, pack_indices
from deploykit_coreml.lowering_context import LoweringContext

if TYPE_CHECKING:
    import onnx_ir as ir

_SYMMETRIC_MOST = 127


def weights_of(
    node: ir.Node,
    context: LoweringContext,
    channel_axis: int,
    arrange: Callable[[Array], Array] = np.asarray,
    arranged_axis: int | None = None,
) -> Any:
    """The weights at input 1, as an op or a constant.

    Args:
        node: A Conv, ConvTranspose, Gemm or MatMul.
        context: The program.
        channel_axis: Axis of the output channels in ONNX's layout.
        arrange: From ONNX's layout to MIL's.
        arranged_axis: Axis of the output channels there; as ``channel_axis`` by default.

    Raises:
        FormError: the weights are computed.
    """
    value = needed_value(node, 1)
    axis = channel_axis if arranged_axis is None else arranged_axis
    name = value.name or f"{node.outputs[0].name}_weights"
    integers = context.integers.get(name)
    if integers is not None:
        params = context.params[name]
        if params.axis is not None and params.axis != channel_axis:
            raise FormError(f"its weights have a scale for each index of axis {params.axis}")
        return affine_weights(context, name, arrange(integers), params, axis)
    array = constant_array(value)
    if array is None:
        raise FormError("its weights are computed", "weights must be constants")
    if context.compress and array.size >= context.small_weights:
        arranged = np.ascontiguousarray(arrange(array), dtype=np.float32)
        if context.options.palette_bits:
            return palette_weights(context, name, arranged, axis)
        return affine_weights(context, name, *_quantized(context, arranged, axis), axis)
    return context.constant(arrange(array), name)


def _quantized(context: LoweringContext, weights: Array, axis: int) -> tuple[Array, QuantParams]:
    """Symmetric int8 with one scale an output channel, none of them smaller than what is needed."""
    others = tuple(a for a in range(weights.ndim) if a != axis)
    most = np.abs(weights).max(axis=others).astype(np.float64)
    scale = np.where(most > 0, most / _SYMMETRIC_MOST, 1.0).astype(context.dtype)
    short = scale.astype(np.float64) * _SYMMETRIC_MOST < most
    scale = np.where(short, np.nextafter(scale, context.dtype.type(np.inf)), scale)
    params = QuantParams(
        scale=tuple(float(s) for s in scale), zero_point=(0,) * len(scale), dtype="int8", axis=axis
    )
    integers = params.quantize(weights).clip(-_SYMMETRIC_MOST, _SYMMETRIC_MOST)
    return integers, params


def affine_weights(
    context: LoweringContext, name: str, integers: Array, params: QuantParams, axis: int
) -> Any:
    """int8 or uint8 weights with their scales, in MIL's layout.

    A channel that training switched off (weights of 1e-9 beside weights of 0.3) may have a step
    that float16 cannot hold, or only coarsely. It is given the next larger one that float16 has
    (2**-24 at least), and its integers are rounded again: an error below half of that step.
    """
    integers, params = _on_representable_steps(integers, params, axis, context.dtype)
    held = context.rounded(params)
    scale: Any = np.asarray(held.scale, context.dtype)
    zero: Any = np.asarray(held.zero_point, integers.dtype)
    if params.axis is None:
        scale, zero = scale[0], zero[0]
    return context.emit(
        "constexpr_affine_dequantize",
        name,
        quantized_data=np.ascontiguousarray(integers),
        scale=scale,
        zero_point=zero,
        axis=np.int32(axis),
    )


def _on_representable_steps(
    integers: Array, params: QuantParams, axis: int, dtype: np.dtype[Any]
) -> tuple[Array, QuantParams]:
    """Weights whose steps below the program's smallest normal number are numbers that it has."""
    steps = np.asarray(params.scale, np.float64)
    small = steps < float(np.finfo(dtype).tiny)
    if not small.any():
        return integers, params
    held = steps.astype(dtype)
    short = small & (held.astype(np.float64) < steps)
    held = np.where(short, np.nextafter(held, dtype.type(np.inf)), held).astype(np.float64)
    coarser = np.where(small, held, steps)
    along = (-1 if i == axis and params.axis is not None else 1 for i in range(integers.ndim))
    shape = tuple(along)
    zero = np.reshape(params.zero_point, shape) if params.axis is not None else params.zero_point[0]
    ratio = np.reshape(steps / coarser, shape) if params.axis is not None else steps / coarser
    moved = np.rint((integers.astype(np.float64) - zero) * ratio) + zero
    return moved.astype(integers.dtype), replace(params, scale=tuple(map(float, coarser)))


def palette_weights(context: LoweringContext, name: str, weights: Array, axis: int) -> Any:
    """Weights by index, in MIL's layout."""
    bits = context.options.palette_bits
    if context.options.ios >= 18:
        return _grouped_palette(context, name, weights, axis, bits)
    palette, indices = _fitted(context, weights, bits)
    return context.emit(
        "constexpr_lut_to_dense",
        name,
        indices=pack_indices(indices, bits),
        lut=palette,
        shape=np.asarray(weights.shape, np.uint32),
    )


def _fitted(context: LoweringContext, weights: Array, bits: int) -> tuple[Array, Array]:
    """A palette in the program's type, and the indices that are nearest in it."""
    palette = context.constant(fit_palette(weights, bits)[0], "palette")
    return palette, nearest(palette.astype(np.float32), weights)


def _grouped_palette(
    context: LoweringContext, name: str, weights: Array, axis: int, bits: int
) -> Any:
    """CoreML8's form: a palette for each run of output channels; one for all where none is asked.

    The palettes have shape (1, .., groups, .., 1, 2^bits, 1), ``groups`` on the channels' axis.
    """
    channels = weights.shape[axis]
    together = context.options.palette_channels or channels
    if channels % together:
        together = channels  # a last group of its own size is nothing that the format has
    groups = channels // together
    parts = [_fitted(context, part, bits) for part in np.split(weights, groups, axis=axis)]
    shape = [1] * weights.ndim
    shape[axis] = groups
    palettes = np.stack([p for p, _ in parts]).reshape(*shape, 2**bits, 1)
    indices = np.concatenate([i for _, i in parts], axis=axis)
    return context.emit(
        "constexpr_lut_to_dense", name, indices=_typed_indices(indices, bits), lut=palettes
    )


def _typed_indices(indices: Array, bits: int) -> Array:
    if bits == 8:
        return indices
    from coremltools.converters.mil.mil import types

    dtype = {4: types.np_uint4_dtype, 6: types.np_uint6_dtype}[bits]
    typed: Array = indices.astype(dtype)
    return typed
