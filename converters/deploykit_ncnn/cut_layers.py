"""Each layer of a .param and .bin file as a pair of files of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from deploykit.file_layers import CutLayer
from deploykit_ncnn.fp16_workaround import FEATURE_MASK, NO_FP16_ARITHMETIC
from deploykit_ncnn.layer_graph import Layer
from deploykit_ncnn.read_files import bin_beside, read_param, read_storage
from deploykit_ncnn.write_files import write_param

_INPUT = "Input"
_WORKAROUND = f"layer parameter {FEATURE_MASK}={NO_FP16_ARITHMETIC}: no float16 arithmetic in it"


def cut_layers(path: Path) -> tuple[CutLayer, ...]:
    """Every layer, in the order of the file.

    Args:
        path: The .param file; the .bin file is beside it.

    Raises:
        SourceError: one of the two is damaged.
    """
    layers = read_param(path)
    storage = read_storage(bin_beside(path), layers)
    weights = bin_beside(path).read_bytes()
    found, start = [], 0
    for layer in layers:
        size = storage[layer.name].bytes if layer.name in storage else 0
        found.append(_cut(layer, weights[start : start + size]))
        start += size
    return tuple(found)


def _cut(layer: Layer, weights: bytes) -> CutLayer:
    bare = CutLayer(layer.name, layer.type, layer.inputs, layer.outputs)
    if layer.type == _INPUT or not layer.inputs:
        return bare
    cut = replace(bare, files=_files(layer, weights))
    if FEATURE_MASK in layer.params:
        return cut
    mended = replace(layer, params={**layer.params, FEATURE_MASK: NO_FP16_ARITHMETIC})
    return replace(cut, workaround=_WORKAROUND, mended=_files(mended, weights))


def _files(layer: Layer, weights: bytes) -> dict[str, bytes]:
    inputs = [Layer(_INPUT, f"input_{i}", (), (blob,)) for i, blob in enumerate(layer.inputs)]
    return {".param": write_param([*inputs, layer]), ".bin": weights}
