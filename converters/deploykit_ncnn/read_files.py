"""A .param file read back, and the .bin file beside it checked against it."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, prod
from pathlib import Path
from typing import BinaryIO

from deploykit.errors import SourceError
from deploykit_ncnn.layer_graph import Layer, Param
from deploykit_ncnn.write_files import (
    ALIGNMENT,
    ARRAY_BASE,
    MAGIC,
    TAG_FLOAT,
    TAG_HALF,
    TAG_INT8,
)

_CONVOLUTIONS = frozenset(
    {"Convolution", "ConvolutionDepthWise", "Deconvolution", "DeconvolutionDepthWise"}
)
_WITH_ARRAYS = _CONVOLUTIONS | {"InnerProduct", "PReLU", "MemoryData"}
#: All other types that are written here.
_WITHOUT_ARRAYS = frozenset(
    {
        *("BinaryOp", "Clip", "Concat", "Crop", "ELU", "Flatten", "GELU", "HardSigmoid"),
        *("HardSwish", "Input", "Interp", "MatMul", "Padding", "Permute", "Pooling", "ReLU"),
        *("Reduction", "Reshape", "ShuffleChannel", "Sigmoid", "Slice", "Softmax", "Split"),
        *("Swish", "TanH", "Tile", "UnaryOp"),
    }
)

_TAGS = {TAG_FLOAT: ("float32", 4), TAG_HALF: ("float16", 2), TAG_INT8: ("int8", 1)}
_ADVICE = "convert the model again, or copy both files again"


@dataclass(frozen=True)
class StoredWeights:
    """How a layer's arrays are stored.

    Attributes:
        dtype: Of its weights; empty if it has none that say their type.
        bytes: Of all its arrays.
        scales: Of a layer in integers, as the file has them, 127 over the largest magnitude: those
            of the weights, that of the input, and that of the result if it is handed on in
            integers.
    """

    dtype: str
    bytes: int
    scales: tuple[tuple[float, ...], ...] = ()


def is_param(path: Path) -> bool:
    """Whether a file is a .param file, by its content."""
    try:
        with path.open("rb") as stream:
            return stream.read(16).split(b"\n", 1)[0].strip() == str(MAGIC).encode()
    except OSError:
        return False


def bin_beside(path: Path) -> Path:
    """The .bin file that belongs to a .param file."""
    return path.with_suffix(".bin")


def read_param(path: Path) -> tuple[Layer, ...]:
    """The layers of a .param file, without their arrays.

    Raises:
        SourceError: it is no such file, or damaged.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} cannot be read: {error}") from error
    if not lines or lines[0].strip() != str(MAGIC):
        raise SourceError(f"{path} is no ncnn .param file", expected=f"first line {MAGIC}")
    rows = [line.split() for line in lines[1:] if line.strip()]
    counts = rows[0] if rows else []
    if len(counts) != 2 or not all(c.isdecimal() for c in counts):
        raise _damaged(path, "its second line does not give the counts of layers and blobs")
    layers = tuple(_read_layer(path, row) for row in rows[1:])
    made = [blob for layer in layers for blob in layer.outputs]
    if (len(layers), len(made)) != tuple(map(int, counts)):
        raise _damaged(path, f"{counts[0]} layers and {counts[1]} blobs are announced, "
                             f"{len(layers)} and {len(made)} are there")  # fmt: skip
    known: set[str] = set()
    for layer in layers:
        for blob in layer.inputs:
            if blob not in known:
                raise _damaged(path, f"'{layer.name}' reads '{blob}', which no layer before makes")
        known.update(layer.outputs)
    if len(known) != len(made):
        raise _damaged(path, "two layers make one blob")
    return layers


def _damaged(path: Path, why: str) -> SourceError:
    return SourceError(f"{path} is damaged: {why}", advice=_ADVICE)


def _read_layer(path: Path, row: list[str]) -> Layer:
    try:
        kind, name, ins, outs, *rest = row
        inputs, outputs = int(ins), int(outs)
        blobs, params = rest[: inputs + outputs], rest[inputs + outputs :]
        if len(blobs) != inputs + outputs or any("=" in blob for blob in blobs):
            raise ValueError("names of blobs are missing")
        return Layer(
            kind, name, tuple(blobs[:inputs]), tuple(blobs[inputs:]), dict(map(_read_pair, params))
        )
    except ValueError as error:
        raise _damaged(path, f"the line '{' '.join(row)[:80]}': {error}") from error


def _read_pair(word: str) -> tuple[int, Param]:
    key, _, text = word.partition("=")
    number = int(key)
    if number > ARRAY_BASE:
        return number, _read_number(text)
    count, *values = text.split(",")
    if len(values) != int(count):
        raise ValueError(f"{count} numbers are announced, {len(values)} are there")
    return ARRAY_BASE - number, tuple(map(_read_number, values))


def _read_number(text: str) -> int | float:
    return float(text) if "." in text or "e" in text.lower() else int(text)


def read_storage(path: Path, layers: tuple[Layer, ...]) -> dict[str, StoredWeights]:
    """Name of a layer → how its arrays are stored, for those that have any.

    Args:
        path: The .bin file.
        layers: Of the .param file. From the first one on whose type is `unknown_layer`, where
            arrays lie cannot be known: they are omitted, and the length is not checked.

    Raises:
        SourceError: it is missing, too short or too long, or has a tag that does not exist.
    """
    found: dict[str, StoredWeights] = {}
    stop = unknown_layer(layers)
    offset = 0
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            for layer in layers[: layers.index(stop)] if stop is not None else layers:
                stored = _read_arrays(path, stream, layer, offset, size)
                offset += stored.bytes
                if stored.bytes:
                    found[layer.name] = stored
    except OSError as error:
        raise SourceError(
            f"{path} cannot be read: {error}",
            expected="the weights, beside the .param file",
            advice=_ADVICE,
        ) from error
    if offset != size and stop is None:
        raise _damaged(path, f"{size} bytes are there, the layers need {offset}")
    return found


def unknown_layer(layers: tuple[Layer, ...]) -> Layer | None:
    """The first layer of a type that deploykit does not write; None if there is none."""
    return next((x for x in layers if x.type not in _WITH_ARRAYS | _WITHOUT_ARRAYS), None)


def _read_arrays(
    path: Path, stream: BinaryIO, layer: Layer, start: int, size: int
) -> StoredWeights:
    """How a layer's arrays are stored, which begin at ``start`` in a file of ``size`` bytes."""
    offset, dtype = start, ""
    scales: list[tuple[float, ...]] = []
    for array in _arrays_of(layer):
        if array.count < 0:
            raise _damaged(path, f"'{layer.name}' has an array of {array.count} elements")
        begin, width = offset, 4
        if array.tagged:
            offset += 4
            if offset > size:
                raise _short(path, layer, offset, size)
            stream.seek(begin)
            (tag,) = struct.unpack("<I", stream.read(4))
            if tag not in _TAGS:
                raise _damaged(path, f"the weights of '{layer.name}' have the tag {tag:#x}")
            dtype, width = _TAGS[tag]
        offset += -(-array.count * width // ALIGNMENT) * ALIGNMENT
        if offset > size:
            raise _short(path, layer, offset, size)
        if array.is_scale:
            stream.seek(begin)
            data = stream.read(offset - begin)
            scales.append(struct.unpack(f"<{array.count}f", data))
            if not all(isfinite(scale) and scale > 0 for scale in scales[-1]):
                raise _damaged(path, f"'{layer.name}' has a scale that is not above zero")
    return StoredWeights(dtype, offset - start, tuple(scales))


def _short(path: Path, layer: Layer, needed: int, have: int) -> SourceError:
    return _damaged(path, f"{have} bytes are there, and layer '{layer.name}' needs {needed}")


@dataclass(frozen=True)
class _Array:
    count: int
    tagged: bool = False
    is_scale: bool = False


def _arrays_of(layer: Layer) -> list[_Array]:
    """The arrays of a layer, in the order of the file."""

    def number(key: int, default: int = 0) -> int:
        value = layer.params.get(key, default)
        return value if isinstance(value, int) else default

    if layer.type in _CONVOLUTIONS or layer.type == "InnerProduct":
        has_bias, weights = (5, 6) if layer.type in _CONVOLUTIONS else (1, 2)
        made, term = number(0), number(8)
        groups = number(7, 1) if layer.type in _CONVOLUTIONS else 1
        arrays = [_Array(number(weights), tagged=True)]
        arrays += [_Array(made)] if number(has_bias) else []
        if term:
            # Weight scales, input scale, and the scale of the integers handed on.
            counts = [groups if term % 100 == 1 else made, 1, *([1] if term > 100 else [])]
            arrays += [_Array(count, is_scale=True) for count in counts]
        return arrays
    if layer.type == "PReLU":
        return [_Array(number(0))]
    if layer.type == "MemoryData":
        return [_Array(prod(number(key) for key in (0, 1, 2, 11) if number(key)))]
    return []


def boundary_blobs(layers: tuple[Layer, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the inputs, and of the outputs: the blobs that no layer reads."""
    inputs = tuple(b for layer in layers if layer.type == "Input" for b in layer.outputs)
    read = {blob for layer in layers for blob in layer.inputs}
    made = (b for layer in layers if layer.type != "Input" for b in layer.outputs)
    return inputs, tuple(b for b in made if b not in read)


def computed_blobs(layers: tuple[Layer, ...], outputs: tuple[str, ...]) -> tuple[str, ...]:
    """Every blob that a layer computes; copies for several readers are omitted."""
    kinds: Mapping[str, bool] = {"Input": False, "MemoryData": False, "Split": False}
    return tuple(
        b for layer in layers for b in layer.outputs if kinds.get(layer.type, True) or b in outputs
    )
