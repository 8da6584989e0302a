"""A .param file read back, and the .bin file beside it checked against it."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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

_TAGS = {TAG_FLOAT: ("float32", 4), TAG_HALF: ("float16", 2), TAG_INT8: ("int8", 1)}
_ADVICE = "convert the model again, or copy both files again"


@dataclass(frozen=True)
class StoredWeights:
    """How a layer's arrays are stored.

    Attributes:
        dtype: Of its weights; empty if it has none that say their type.
        bytes: Of all its arrays.
    """

    dtype: str
    bytes: int


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
    """Name of a layer > how its arrays are stored, for those that have any.

    Args:
        path: The .bin file.
        layers: Of the .param file.

    Raises:
        SourceError: it is missing, too short or too long, or has a tag that does not exist.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(
            f"{path} cannot be read: {error}", expected="the weights, beside the .param file"
        ) from error
    found: dict[str, StoredWeights] = {}
    offset = 0
    for layer in layers:
        start, dtype = offset, ""
        for count, tagged in _array_sizes(layer):
            if tagged:
                if offset + 4 > len(data):
                    raise _short(path, layer, offset + 4, len(data))
                (tag,) = struct.unpack_from("<I", data, offset)
                if tag not in _TAGS:
                    raise _damaged(path, f"the weights of '{layer.name}' have the tag {tag:#x}")
                dtype, size = _TAGS[tag]
                offset += 4 + -(-count * size // ALIGNMENT) * ALIGNMENT
            else:
                offset += 4 * count
        if offset > len(data):
            raise _short(path, layer, offset, len(data))
        if offset > start:
            found[layer.name] = StoredWeights(dtype, offset - start)
    if offset != len(data):
        raise _damaged(path, f"{len(data)} bytes are there, the layers need {offset}")
    return found


def _short(path: Path, layer: Layer, needed: int, have: int) -> SourceError:
    return _damaged(path, f"{have} bytes are there, and layer '{layer.name}' needs {needed}")


def _array_sizes(layer: Layer) -> list[tuple[int, bool]]:
    """(elements, whether tagged) of each array of a layer, in the order of the file."""

    def number(key: int, default: int = 0) -> int:
        value = layer.params.get(key, default)
        return value if isinstance(value, int) else default

    if layer.type in _CONVOLUTIONS:
        weights, made = number(6), number(0)
        sizes = [(weights, True)] + ([(made, False)] if number(5) else [])
        return sizes + _scale_sizes(number(8), made, number(7, 1))
    if layer.type == "InnerProduct":
        sizes = [(number(2), True)] + ([(number(0), False)] if number(1) else [])
        return sizes + _scale_sizes(number(8), number(0), 1)
    if layer.type == "PReLU":
        return [(number(0), False)]
    if layer.type == "MemoryData":
        lengths = [number(key) for key in (0, 1, 2, 11) if number(key)]
        count = 1
        for length in lengths:
            count *= length
        return [(count, False)]
    return []


_CONVOLUTIONS = frozenset(
    {"Convolution", "ConvolutionDepthWise", "Deconvolution", "DeconvolutionDepthWise"}
)


def _scale_sizes(term: int, made: int, groups: int) -> list[tuple[int, bool]]:
    """Weight scales, input scale, and the scale of the integers handed on."""
    if not term:
        return []
    sizes = [(groups if term % 100 == 1 else made, False), (1, False)]
    return sizes + ([(1, False)] if term > 100 else [])


def boundary_blobs(layers: tuple[Layer, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the inputs, and of the outputs: the blobs that no layer reads."""
    inputs = tuple(b for layer in layers if layer.type == "Input" for b in layer.outputs)
    read = {blob for layer in layers for blob in layer.inputs}
    made = (b for layer in layers if layer.type != "Input" for b in layer.outputs)
    return inputs, tuple(b for b in made if b not in read)


def computed_blobs(layers: tuple[Layer, ...], outputs: tuple[str, ...]) -> tuple[str, ...]:
    """Every blob that a layer computes; copies for several readers are left out."""
    kinds: Mapping[str, bool] = {"Input": False, "MemoryData": False, "Split": False}
    return tuple(
        b for layer in layers for b in layer.outputs if kinds.get(layer.type, True) or b in outputs
    )
