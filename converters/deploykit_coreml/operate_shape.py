"""Ops that move values."""

from __future__ import annotations

import numpy as np

from deploykit.tensors import Array
from deploykit_coreml.operation_table import Parameters, UnknownFormError, operation

_PAD_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}


@operation("concat", reads="values axis interleave")
def compute_concat(parameters: Parameters) -> Array:
    """Operands one behind the other; interleaved: one index of each in turn."""
    values, axis = parameters.raw("values"), parameters.integer("axis")
    arrays = [np.asarray(v) for v in values]
    if not (parameters.has("interleave") and parameters.flag("interleave")):
        return np.concatenate(arrays, axis=axis)
    if len({a.shape for a in arrays}) != 1:
        raise UnknownFormError("interleaved operands of unequal shapes")
    axis %= arrays[0].ndim
    shape = list(arrays[0].shape)
    shape[axis] *= len(arrays)
    return np.stack(arrays, axis=axis + 1).reshape(shape)


@operation("split", reads="x num_splits split_sizes axis")
def compute_split(parameters: Parameters) -> tuple[Array, ...]:
    """Parts along an axis, equal or of given sizes."""
    x, axis = parameters.array("x"), parameters.integer("axis")
    if parameters.has("split_sizes"):
        sizes = parameters.integers("split_sizes")
        if parameters.has("num_splits") and parameters.integer("num_splits") != len(sizes):
            raise UnknownFormError("num_splits that is not the number of split_sizes")
    else:
        count = parameters.integer("num_splits")
        sizes = [x.shape[axis] // count] * count
    if sum(sizes) != x.shape[axis]:
        raise UnknownFormError(f"parts of {sizes} of an axis of {x.shape[axis]}")
    return tuple(np.split(x, np.cumsum(sizes)[:-1], axis=axis))


@operation("reshape", reads="x shape")
def compute_reshape(parameters: Parameters) -> Array:
    """Another shape of the same elements."""
    shape = parameters.integers("shape")
    if min(shape, default=0) < 1:
        raise UnknownFormError(f"a shape with an inferred length: {shape}")
    return parameters.array("x").reshape(shape)


@operation("transpose", reads="x perm")
def compute_transpose(parameters: Parameters) -> Array:
    """Axes in another order."""
    return parameters.array("x").transpose(parameters.integers("perm"))


@operation("slice_by_index", reads="x begin end stride")
def compute_slice(parameters: Parameters) -> Array:
    """A box from ``begin`` to ``end``."""
    x = parameters.array("x")
    begin, end = parameters.integers("begin"), parameters.integers("end")
    stride = parameters.integers("stride") if parameters.has("stride") else [1] * x.ndim
    if len(begin) != x.ndim or min(begin) < 0 or min(end) < 0 or min(stride) < 1:
        raise UnknownFormError(f"begin {begin}, end {end}, stride {stride}")
    return x[tuple(slice(*bounds) for bounds in zip(begin, end, stride, strict=True))]


@operation("pad", reads="x pad mode constant_val")
def compute_pad(parameters: Parameters) -> Array:
    """Elements before and after the last axes."""
    x, pads = parameters.real(), parameters.integers("pad")
    mode = parameters.text("mode") if parameters.has("mode") else "constant"
    fill = parameters.number("constant_val") if parameters.has("constant_val") else 0.0
    if mode not in _PAD_MODES or len(pads) % 2 or len(pads) > 2 * x.ndim or min(pads) < 0:
        raise UnknownFormError(f"mode {mode!r} with pads {pads}")
    rows = [(0, 0)] * (x.ndim - len(pads) // 2)
    rows += list(zip(pads[::2], pads[1::2], strict=True))
    if mode == "constant":
        return np.pad(x, rows, constant_values=np.float32(fill))
    padded: Array = np.pad(x, rows, mode=_PAD_MODES[mode])  # type: ignore[call-overload]
    return padded


@operation("gather", reads="x indices axis batch_dims validate_indices")
def compute_gather(parameters: Parameters) -> Array:
    """Elements by index along an axis."""
    x, axis = parameters.array("x"), parameters.integer("axis")
    indices = parameters.array("indices")
    if parameters.has("batch_dims"):
        parameters.require("batch_dims", 0)
    if parameters.has("validate_indices"):
        parameters.flag("validate_indices")  # indices outside raise here in either case
    if indices.dtype.kind not in "iu" or indices.ndim != 1:
        raise UnknownFormError(f"indices of type {indices.dtype.name} and rank {indices.ndim}")
    picked: Array = np.take(x, indices.astype(np.int64), axis=axis)
    return picked


@operation("tile", reads="x reps")
def compute_tile(parameters: Parameters) -> Array:
    """The whole array, repeated along each axis."""
    x, repeats = parameters.array("x"), parameters.integers("reps")
    if len(repeats) != x.ndim:
        raise UnknownFormError(f"{len(repeats)} repeats for {x.ndim} axes")
    return np.tile(x, repeats)
