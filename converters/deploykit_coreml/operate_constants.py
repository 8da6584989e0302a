"""Constants, weights that are decompressed, quantization, types."""

from __future__ import annotations

import numpy as np

from deploykit.tensors import Array
from deploykit_coreml.fit_palette import unpack_indices
from deploykit_coreml.operation_table import Parameters, UnknownFormError, operation

_TYPES = {"fp16": "float16", "fp32": "float32"}
_PALETTE_BITS = {2: 1, 4: 2, 16: 4, 64: 6, 256: 8}


@operation("const", reads="val")
def compute_const(parameters: Parameters) -> Array:
    """The value, whatever it is."""
    value: Array = parameters.raw("val")
    return value


def _on_axis(values: Array, axis: int, rank: int) -> Array:
    """A vector of one number a channel, to broadcast along an axis; a scalar as it is."""
    if values.size == 1:
        return values.reshape(())
    shape = [1] * rank
    shape[axis] = values.size
    return values.reshape(shape)


@operation("constexpr_affine_dequantize", reads="quantized_data scale zero_point axis")
def compute_affine_weights(parameters: Parameters) -> Array:
    """scale (integers - zero_point)."""
    data, axis = parameters.array("quantized_data"), parameters.integer("axis")
    scale = _on_axis(parameters.real("scale"), axis, data.ndim)
    zero = _on_axis(parameters.array("zero_point").astype(np.float32), axis, data.ndim)
    weights: Array = (data.astype(np.float32) - zero) * scale
    return weights


@operation("constexpr_lut_to_dense", reads="indices lut shape")
def compute_palette_weights(parameters: Parameters) -> Array:
    """Palette values by index.

    Two forms: packed indices, a vector of values and a shape (CoreML6); or indices of the weights'
    own shape, and palettes of shape (groups on each axis ..., 2^bits, 1) (CoreML8).
    """
    palettes = parameters.real("lut")
    if parameters.has("shape"):
        shape = parameters.integers("shape")
        bits = _PALETTE_BITS[palettes.size]
        count = int(np.prod(shape))
        flat = unpack_indices(parameters.array("indices"), bits, count)
        weights: Array = palettes[flat].reshape(shape)
        return weights
    indices = parameters.array("indices")
    if palettes.ndim != indices.ndim + 2 or palettes.shape[-1] != 1:
        raise UnknownFormError(f"palettes of shape {palettes.shape}: vectors are not implemented")
    groups = palettes.shape[:-2]
    repeated = palettes[..., 0]
    for axis, (size, count) in enumerate(zip(indices.shape, groups, strict=True)):
        if size % count:
            raise UnknownFormError(f"{count} palettes on an axis of {size}")
        if count > 1:
            repeated = np.repeat(repeated, size // count, axis=axis)
    full = np.broadcast_to(repeated, (*indices.shape, palettes.shape[-2]))
    picked: Array = np.take_along_axis(full, indices[..., None].astype(np.int64), -1)[..., 0]
    return picked


@operation("quantize", reads="input scale zero_point output_dtype axis")
def compute_quantize(parameters: Parameters) -> Array:
    """clip(round(input / scale) + zero_point), ties to even."""
    real = parameters.real("input")
    axis = parameters.integer("axis") if parameters.has("axis") else 0
    scale = _on_axis(parameters.real("scale"), axis, real.ndim)
    dtype = parameters.text("output_dtype")
    if dtype not in ("int8", "uint8"):
        raise UnknownFormError(f"output_dtype {dtype!r}")
    zero = np.zeros((), np.float32)
    if parameters.has("zero_point"):
        zero = _on_axis(parameters.array("zero_point").astype(np.float32), axis, real.ndim)
    bounds = np.iinfo(dtype)
    integers: Array = np.clip(np.rint(real / scale) + zero, bounds.min, bounds.max).astype(dtype)
    return integers


@operation("dequantize", reads="input scale zero_point axis")
def compute_dequantize(parameters: Parameters) -> Array:
    """scale (input - zero_point)."""
    data = parameters.array("input")
    if data.dtype.name not in ("int8", "uint8"):
        raise UnknownFormError(f"an input of type {data.dtype.name}")
    axis = parameters.integer("axis") if parameters.has("axis") else 0
    scale = _on_axis(parameters.real("scale"), axis, data.ndim)
    zero = np.zeros((), np.float32)
    if parameters.has("zero_point"):
        zero = _on_axis(parameters.array("zero_point").astype(np.float32), axis, data.ndim)
    real: Array = (data.astype(np.float32) - zero) * scale
    return real


@operation("cast", reads="x dtype")
def compute_cast(parameters: Parameters) -> Array:
    """Between float16 and float32."""
    dtype = parameters.text("dtype")
    if dtype not in _TYPES:
        raise UnknownFormError(f"a cast to {dtype!r}")
    return parameters.real().astype(_TYPES[dtype])


@operation("identity", reads="x")
def compute_identity(parameters: Parameters) -> Array:
    """The value itself."""
    return parameters.array("x")


@operation("classify", reads="probabilities classes")
def compute_classify(parameters: Parameters) -> tuple[Array, Array]:
    """Index of the most probable class, int64 (1,), and the probabilities in the labels' order."""
    shares = parameters.real("probabilities").reshape(-1)
    if len(parameters.raw("classes")) != shares.size:
        raise UnknownFormError(f"{shares.size} probabilities for another number of classes")
    return np.asarray([int(np.argmax(shares))], np.int64), shares.astype(np.float64)
