"""A model in words: layers, blobs, how weights are stored, what is integers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from deploykit.printable import printable_line
from deploykit_ncnn.fp16_workaround import FEATURE_MASK, NO_FP16_ARITHMETIC
from deploykit_ncnn.layer_graph import Layer, Param
from deploykit_ncnn.read_files import (
    StoredWeights,
    bin_beside,
    boundary_blobs,
    read_param,
    read_storage,
    unknown_layer,
)

#: Names of the parameters that are worth reading, by type.
_WINDOW = {1: "kernel", 11: "kernel_h", 2: "dilation", 3: "stride", 13: "stride_h", 4: "pad"}
_NAMES: dict[str, dict[int, str]] = {
    "Input": {0: "w", 1: "h", 2: "c", 11: "d"},
    "Convolution": {0: "channels", **_WINDOW},
    "ConvolutionDepthWise": {0: "channels", 7: "groups", **_WINDOW},
    "Deconvolution": {0: "channels", **_WINDOW},
    "DeconvolutionDepthWise": {0: "channels", 7: "groups", **_WINDOW},
    "InnerProduct": {0: "channels"},
    "ShuffleChannel": {0: "groups"},
}
_ACTIVATIONS = {1: "relu", 2: "leaky relu", 3: "clip", 4: "sigmoid", 5: "mish", 6: "hard swish"}
_ACTIVATED = frozenset(_NAMES) - {"Input", "ShuffleChannel"}


def inspect_files(path: Path) -> str:
    """A .param file, and the .bin file beside it, in words.

    Raises:
        SourceError: one of the two is missing or damaged.

    Layers of types that deploykit does not write are listed as they stand; weights from the first
    of them on are not reported.
    """
    layers = read_param(path)
    weights = bin_beside(path)
    storage = read_storage(weights, layers)
    inputs, outputs = boundary_blobs(layers)
    counts = Counter(layer.type for layer in layers)
    dtypes = Counter(s.dtype for s in storage.values() if s.dtype)
    blobs = sum(len(layer.outputs) for layer in layers)
    size = f"{weights.name}: {weights.stat().st_size:,} bytes"
    lines = [
        f"{path.name}: ncnn, {len(layers)} layers, {blobs} blobs; {size}",
        f"  inputs {', '.join(inputs)}; outputs {', '.join(outputs)}",
        f"  layers: {', '.join(f'{n} {kind}' for kind, n in sorted(counts.items()))}",
        f"  weights: {', '.join(f'{n} {d}' for d, n in sorted(dtypes.items())) or 'none'}",
    ]
    stop = unknown_layer(layers)
    if stop is not None:
        lines.append(f"  weights from '{stop.name}' on are not read: {stop.type} is not known here")
    lines.append("")
    lines += [_line(layer, storage.get(layer.name)) for layer in layers]
    return "\n".join(map(printable_line, lines))


def _line(layer: Layer, stored: StoredWeights | None) -> str:
    words = [f"{', '.join(layer.outputs)} = {layer.type}({', '.join(layer.inputs)})"]
    names = _NAMES.get(layer.type)
    if names is not None:
        words += [f"{names[n]} {v}" for n, v in layer.params.items() if n in names]
    else:
        words += [f"{n}={_text(v)}" for n, v in layer.params.items()]
    kind = layer.params.get(9, 0) if layer.type in _ACTIVATED else 0
    if isinstance(kind, int) and kind:
        bounds = layer.params.get(10)
        numbers = "" if bounds is None else f" {_text(bounds)}"
        words.append(_ACTIVATIONS.get(kind, f"activation {kind}") + numbers)
    if layer.params.get(FEATURE_MASK) == NO_FP16_ARITHMETIC and names is not None:
        words.append("no float16 arithmetic")
    if stored is not None:
        words.append(f"{stored.dtype or 'float32'} {stored.bytes:,} bytes")
    if stored is not None and stored.scales:
        _, (read,), *handed_on = stored.scales
        words.append(f"reads int8 in steps of {1 / read:.6g}")
        words += [f"hands on int8 in steps of {1 / made:.6g}" for (made,) in handed_on]
    return f"{', '.join(words)}  # {layer.name}"


def _text(value: Param) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else str(value)
