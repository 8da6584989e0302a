"""The options of this target: declared once, for checking, help and documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deploykit.target_options import SOFTMAX, TargetOption, check_options

_INT8 = ("int8",)
_QUANTIZED = ("int8", "w8")

OPTIONS = (
    TargetOption(
        "activations",
        ("int8", "uint8"),
        "int8",
        "element type of quantized activations",
        precisions=_INT8,
    ),
    TargetOption(
        "per_channel",
        ("yes", "no"),
        "yes",
        "one weight scale an output channel, or one a tensor",
        precisions=_QUANTIZED,
    ),
    TargetOption(
        "reduce_range",
        ("no", "yes"),
        "no",
        "weights of 7 bits: integer sums cannot saturate on x86 CPUs without VNNI",
        precisions=_INT8,
    ),
    TargetOption(
        "ort",
        ("no", "yes"),
        "no",
        "also write an .ort file, and the operator list of a reduced build",
        flag="--ort",
    ),
    SOFTMAX,
)


@dataclass(frozen=True)
class WriteOptions:
    """How a model is to be quantized and written.

    Attributes:
        activations: ``int8`` or ``uint8``.
        per_channel: Whether weights have one scale an output channel.
        reduce_range: Whether weights are within -63..63.
        ort: Whether an .ort file is written beside the .onnx file.
    """

    activations: str
    per_channel: bool
    reduce_range: bool
    ort: bool

    @classmethod
    def parse(cls, options: Mapping[str, str]) -> WriteOptions:
        """Check options given by name.

        Raises:
            ContractError: an unknown name or value.
        """
        chosen = check_options("onnx", OPTIONS, options)
        return cls(
            activations=chosen["activations"],
            per_channel=chosen["per_channel"] == "yes",
            reduce_range=chosen["reduce_range"] == "yes",
            ort=chosen["ort"] == "yes",
        )
