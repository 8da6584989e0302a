"""Layers to the bytes of a .param and a .bin file; the same bytes each time.

The formats (ncnn's developer guide, "param and model file structure"):

    .param  the number 7767517; the counts of layers and blobs; then a line for each layer: type,
            name, counts of inputs and outputs, their names, and ``number=value`` for each
            parameter; ``-23300-number=count,value,...`` for an array.
    .bin    the arrays of each layer in the order of the lines. A tagged array has four bytes
            before it (0: float32, 0x01306B47: float16, 0x000D4B38: int8) and is filled up with
            zeros to a multiple of four; all other arrays are float32.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence

import numpy as np

from deploykit.errors import DataError
from deploykit_ncnn.layer_graph import Layer, Param, Weight

MAGIC = 7767517
ARRAY_BASE = -23300
TAG_FLOAT, TAG_HALF, TAG_INT8 = 0, 0x01306B47, 0x000D4B38
ALIGNMENT = 4

_LARGEST_HALF = 65504.0


def write_param(layers: Sequence[Layer]) -> bytes:
    """The .param file; columns are aligned for a person to read.

    Raises:
        DataError: a parameter that is not finite.
    """
    blobs = sum(len(layer.outputs) for layer in layers)
    lines = [str(MAGIC), f"{len(layers)} {blobs}"]
    kinds = max((len(layer.type) for layer in layers), default=0)
    names = min(max((len(layer.name) for layer in layers), default=0), 40)
    for layer in layers:
        counts = f"{len(layer.inputs)} {len(layer.outputs)}"
        params = [_param_text(layer, number, value) for number, value in layer.params.items()]
        words = [counts, *layer.inputs, *layer.outputs, *params]
        lines.append(f"{layer.type:<{kinds}} {layer.name:<{names}} {' '.join(words)}")
    return ("\n".join(lines) + "\n").encode()


def write_bin(layers: Sequence[Layer], *, half: bool) -> bytes:
    """The .bin file.

    Args:
        layers: As in the .param file.
        half: Whether tagged floats are stored as float16; an array with an element beyond 65504
            stays float32.
    """
    stream = io.BytesIO()  # its bytes are handed out without another copy
    for layer in layers:
        for weight in layer.weights:
            _write_weight(stream, weight, half=half)
    return stream.getvalue()


def fits_half(weight: Weight) -> bool:
    """Whether a tagged array of floats can be stored as float16."""
    return weight.tagged and bool(np.abs(weight.data).max(initial=0.0) <= _LARGEST_HALF)


def _param_text(layer: Layer, number: int, value: Param) -> str:
    if isinstance(value, tuple):
        numbers = ",".join(_number_text(layer, v) for v in value)
        return f"{ARRAY_BASE - number}={len(value)},{numbers}"
    return f"{number}={_number_text(layer, value)}"


def _number_text(layer: Layer, value: int | float) -> str:
    """An integer without a point; a float with a point or an exponent, shortest for float32."""
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    single = np.float32(value)
    if not np.isfinite(single):
        raise DataError(
            f"layer '{layer.name}' has the parameter {value}", expected="a finite float32 number"
        )
    return str(single)


def _write_weight(stream: io.BytesIO, weight: Weight, *, half: bool) -> None:
    data = weight.data
    if not weight.tagged:
        stream.write(np.ascontiguousarray(data, "<f4").data)
        return
    if data.dtype == np.int8:
        tag, held = TAG_INT8, np.ascontiguousarray(data)
    elif half and fits_half(weight):
        tag, held = TAG_HALF, np.ascontiguousarray(data, "<f2")
    else:
        tag, held = TAG_FLOAT, np.ascontiguousarray(data, "<f4")
    stream.write(struct.pack("<I", tag))
    stream.write(held.data)
    stream.write(b"\0" * (-held.nbytes % ALIGNMENT))
