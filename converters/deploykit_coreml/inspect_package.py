"""An .mlpackage in words: what it takes and gives, its ops, types, weights, oldest iOS."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from deploykit.printable import printable_line, printable_name
from deploykit_coreml.package_format import OPSETS
from deploykit_coreml.read_package import Feature, Package, ProgramOp, read_package

_WEIGHT_NAMES = {
    "constexpr_affine_dequantize": "int8 behind a scale",
    "constexpr_lut_to_dense": "palettes",
}


def inspect_package(path: Path) -> str:
    """The package as text.

    Raises:
        SourceError: it is missing or damaged.
    """
    package = read_package(path)
    ios = {opset: number for number, opset in OPSETS.items()}.get(package.opset)
    steps = [op for op in package.operations if op.type != "const"]
    oldest = f"iOS {ios} and later" if ios else "an unknown iOS"
    lines = [
        f"{package.path.name}: Core ML program, {package.opset} ({oldest})",
        f"specification version {package.specification}",
        f"weights {package.weight_bytes:,} bytes: {_weights(package)}",
        "",
        *_describe_features(package),
        "",
        *_describe_ops(steps),
    ]
    interleaved = _count_interleaved(package)
    if interleaved:
        lines.append(f"  channel shuffles as interleaved concat: {interleaved}")
    described = [
        f"  {printable_name(key)}: {printable_line(value)}"
        for key, value in package.metadata.items()
        if value
    ]
    return "\n".join([*lines, "", "metadata", *described])


def _describe_features(package: Package) -> list[str]:
    inputs = {name for name, _ in package.inputs}
    lines = []
    for feature in package.features.values():
        side = "input " if feature.name in inputs else "output"
        lines.append(f"{side} {printable_name(feature.name)}: {_words(feature)}")
    return lines


def _words(feature: Feature) -> str:
    shape = " x ".join(map(str, feature.shape))
    if feature.kind == "image":
        return f"image {feature.dtype}, {shape}"
    if feature.kind == "tensor":
        return f"{feature.dtype} {shape}"
    return feature.kind


def _weights(package: Package) -> str:
    bytes_of: Counter[str] = Counter()
    for op in package.operations:
        arrays = [v for v in op.attributes.values() if isinstance(v, np.ndarray)]
        arrays += [v for vs in op.inputs.values() for v in vs if isinstance(v, np.ndarray)]
        for array in arrays:
            kind = _WEIGHT_NAMES.get(op.type, array.dtype.name)
            bytes_of[kind] += array.nbytes
    shown = [(kind, count) for kind, count in bytes_of.most_common() if count >= 1024]
    return ", ".join(f"{kind} {count:,}" for kind, count in shown) or "none"


def _describe_ops(steps: list[ProgramOp]) -> list[str]:
    counts = Counter(printable_name(op.type) for op in steps)
    computed = Counter(
        type_.dtype for op in steps for _, type_ in op.outputs if type_.kind == "tensor"
    )
    types = ", ".join(f"{dtype} {count}" for dtype, count in computed.most_common())
    lines = [f"{len(steps)} ops; results by type: {types}"]
    width = max((len(type_) for type_ in counts), default=0)
    lines += [f"  {type_:<{width}}  {count:>4}" for type_, count in counts.most_common()]
    return lines


def _count_interleaved(package: Package) -> int:
    constants = {
        op.outputs[0][0]: op.attributes["val"] for op in package.operations if op.type == "const"
    }
    count = 0
    for op in package.operations:
        if op.type == "concat":
            flags = op.inputs.get("interleave", ())
            values = [constants.get(f) if isinstance(f, str) else f for f in flags]
            count += any(isinstance(v, np.ndarray) and bool(v.all()) for v in values)
    return count
