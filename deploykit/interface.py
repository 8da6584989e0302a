"""What an app gives an artefact and gets of it: each input and output in words and numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deploykit.json_file import number, text, whole
from deploykit.preprocess import Preprocess
from deploykit.tensors import QuantParams, TensorSpec

_IMAGE_RANKS = {"NCHW": 4, "NHWC": 4, "CHW": 3}


@dataclass(frozen=True)
class TensorUse:
    """One input or output of one artefact, as an app meets it.

    Attributes:
        path: The artefact's path in the bundle.
        direction: ``input`` or ``output``.
        name: What its runtime calls it.
        dtype: Element type, e.g. ``int8``.
        shape: In the artefact's own layout.
        layout: ``NCHW``, ``NHWC``, ``CHW`` or ``plain``.
        scale: Of integers: one, or one a channel; empty for floats.
        zero_point: Likewise.
        meaning: What a pixel must become, or what the numbers are; empty where that is not known.
    """

    path: str
    direction: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    layout: str
    scale: tuple[float, ...] = ()
    zero_point: tuple[int, ...] = ()
    meaning: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a report; `from_dict` reads it back."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TensorUse:
        """Read what `to_dict` wrote.

        Raises:
            KeyError, TypeError, ValueError: something is missing, or of another type.
        """
        words = {k: text(data[k], k) for k in _TEXTS}
        return cls(
            **words,
            shape=tuple(whole(d, "a dimension") for d in data["shape"]),
            scale=tuple(number(s, "a scale") for s in data["scale"]),
            zero_point=tuple(whole(z, "a zero point", least=-(2**31)) for z in data["zero_point"]),
        )

    def describe(self) -> str:
        """One line: direction, name, element type, layout, shape, quantization, meaning."""
        shape = "x".join(map(str, self.shape))
        layout = "" if self.layout == "plain" else f" {self.layout}"
        line = f"{self.direction} '{self.name}': {self.dtype}{layout} {shape}"
        if len(self.scale) == 1:
            line += f", scale {self.scale[0]:.6g}, zero point {self.zero_point[0]}"
        elif self.scale:
            line += f", {len(self.scale)} scales"
        return f"{line}; {self.meaning}" if self.meaning else line


_TEXTS = ("path", "direction", "name", "dtype", "layout", "meaning")


def tensor_uses(
    path: str,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    preprocess: Preprocess | None,
    output_kinds: Mapping[str, str],
    pixel_input: str = "",
) -> Iterator[TensorUse]:
    """The inputs and outputs of one artefact, in order.

    Args:
        path: The artefact's path in the bundle.
        inputs: As the artefact has them.
        outputs: Likewise.
        preprocess: The contract of the image input, which is the only input then; None for none.
        output_kinds: Output name → what it is (`deploykit.graph.score_kinds`), where known.
        pixel_input: The runtime's name of an input that takes pixels as they are, normalized
            inside; empty for none.
    """
    for spec in inputs:
        meaning = ""
        if spec.runtime_name == pixel_input and preprocess is not None:
            meaning = f"pixels 0..255 as they are, {preprocess.color} (normalized inside)"
        elif preprocess is not None and len(inputs) == 1 and _is_image(spec):
            meaning = f"{preprocess.color}, {pixel_formula(preprocess, spec.quantization)}"
        yield _use(path, "input", spec, meaning)
    for spec in outputs:
        kind = output_kinds.get(spec.name, "")
        real = "real = scale * (value - zero point)" if spec.quantization else ""
        yield _use(path, "output", spec, ", ".join(filter(None, (real, kind))))


def pixel_terms(
    preprocess: Preprocess, quantization: QuantParams | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Factor and offset of each channel: ``value = pixel * factor + offset`` for pixels 0..255.

    Args:
        preprocess: The contract.
        quantization: Of the input: then the value is rounded, and saturated to its element type;
            None for a float input.
    """
    scale, zero = (quantization.scale[0], quantization.zero_point[0]) if quantization else (1.0, 0)
    pairs = list(zip(preprocess.mean, preprocess.std, strict=True))
    factors = tuple(1 / (255 * std * scale) for _, std in pairs)
    return factors, tuple(zero - mean / (std * scale) for mean, std in pairs)


def pixel_formula(preprocess: Preprocess, quantization: QuantParams | None) -> str:
    """What a pixel of 0..255 must become, with the numbers of each channel."""
    factors, offsets = pixel_terms(preprocess, quantization)
    factor, offset = _numbers(factors), _numbers(offsets)
    formula = f"pixel * {factor} + {offset}"
    return f"value = round({formula})" if quantization else f"value = {formula}"


def _numbers(values: Sequence[float]) -> str:
    if all(math.isclose(v, values[0], rel_tol=1e-9, abs_tol=1e-12) for v in values):
        return f"{values[0]:.6g}" if values[0] >= 0 else f"({values[0]:.6g})"
    return f"[{', '.join(f'{v:.6g}' for v in values)}]"


def _is_image(spec: TensorSpec) -> bool:
    return _IMAGE_RANKS.get(spec.layout) == len(spec.shape)


def _use(path: str, direction: str, spec: TensorSpec, meaning: str) -> TensorUse:
    params = spec.quantization
    return TensorUse(
        path=path,
        direction=direction,
        name=spec.runtime_name,
        dtype=spec.dtype,
        shape=spec.shape,
        layout=spec.layout,
        scale=params.scale if params else (),
        zero_point=params.zero_point if params else (),
        meaning=meaning,
    )
