"""The options of this target: declared once, for checking, help and documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deploykit.target_options import TargetOption, check_options

OPTIONS = (
    TargetOption(
        "activations",
        ("int8", "uint8"),
        "int8",
        "int8: element type of quantized activations",
    ),
    TargetOption(
        "per_channel",
        ("yes", "no"),
        "yes",
        "int8: one weight scale an output channel, or one a tensor",
    ),
    TargetOption(
        "ort",
        ("no", "yes"),
        "no",
        "also write an .ort file, and the operator list of a reduced build",
    ),
)


@dataclass(frozen=True)
class WriteOptions:
    """How a model is to be quantized and written.

    Attributes:
        activations: ``int8`` or ``uint8``.
        per_channel: Whether weights have one scale an output channel.
        ort: Whether an .ort file is written beside the .onnx file.
    """

    activations: str
    per_channel: bool
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
            ort=chosen["ort"] == "yes",
        )
