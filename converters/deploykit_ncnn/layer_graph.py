"""The layers of an ncnn model, and where a blob has to be split.

A blob is made by one layer and read by at most one: where several read it, a ``Split`` layer makes
a copy (a reference at run time) for each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from deploykit.tensors import Array

#: ncnn reads at most 255 bytes of a name; room is left for a number.
_LONGEST_NAME = 240

Param = int | float | tuple[int | float, ...]


@dataclass(frozen=True)
class Weight:
    """One array of a layer.

    Attributes:
        data: float32 or int8, in the order of the file.
        tagged: Whether the file says its type before it: then it may be float16 or int8; what is
            not tagged is float32.
    """

    data: Array
    tagged: bool = False


@dataclass(frozen=True)
class Layer:
    """One line of a .param file.

    Attributes:
        type: E.g. ``Convolution``.
        name: Unique among layers.
        inputs: Names of blobs.
        outputs: Names of blobs.
        params: Number of a parameter → what it is.
        weights: Its arrays, in the order of the .bin file.
    """

    type: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: Mapping[int, Param] = field(default_factory=dict)
    weights: tuple[Weight, ...] = ()


def split_shared_blobs(layers: Sequence[Layer], outputs: Mapping[str, str]) -> list[Layer]:
    """The layers with a ``Split`` wherever a blob has several readers, and outputs named.

    Args:
        layers: In an order in which each blob is made before it is read.
        outputs: Name that an output of the model has → blob that it is.

    Returns:
        The layers; blobs that are an output bear its name. Where an output is also read, or is an
        input, or is another output too, it is one of the blobs that a ``Split`` makes.
    """
    readers: dict[str, int] = {}
    for layer in layers:
        for blob in layer.inputs:
            readers[blob] = readers.get(blob, 0) + 1
    ends: dict[str, list[str]] = {}
    for name, blob in outputs.items():
        ends.setdefault(blob, []).append(name)
    blobs = {b for layer in layers for b in layer.outputs} | set(outputs)
    titles = {layer.name for layer in layers}
    made: list[Layer] = []
    copies: dict[str, list[str]] = {}
    for layer in layers:
        inputs = tuple(copies[b].pop(0) if b in copies else b for b in layer.inputs)
        sole = {
            b: ends[b][0]
            for b in layer.outputs
            if b not in readers and len(ends.get(b, ())) == 1 and layer.type != "Input"
        }
        outs = tuple(sole.get(b, b) for b in layer.outputs)
        made.append(replace(layer, inputs=inputs, outputs=outs))
        for blob in layer.outputs:
            own = [] if blob in sole else ends.get(blob, [])
            count = readers.get(blob, 0)
            if count < 2 and not own:
                continue
            copies[blob] = [unique_name(f"{blob}_copy{i}", blobs) for i in range(count)]
            title = unique_name(f"{blob}_split", titles)
            made.append(Layer("Split", title, (blob,), (*copies[blob], *own)))
    return made


def unique_name(wanted: str, taken: set[str]) -> str:
    """A name as ncnn reads it (no white space, at most 255 bytes), not given before; now taken."""
    plain = "_".join(wanted.split()) or "unnamed"
    plain = plain.encode()[:_LONGEST_NAME].decode(errors="ignore")
    name, count = plain, 0
    while name in taken:
        count += 1
        name = f"{plain}_{count}"
    taken.add(name)
    return name
