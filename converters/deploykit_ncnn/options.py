"""The options of this target, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deploykit.target_options import TargetOption, check_options

OPTIONS = (
    TargetOption(
        "requantize",
        ("yes", "no"),
        "yes",
        "convolutions that follow one another hand on integers, not floats",
        precisions=("int8",),
    ),
    TargetOption(
        "depthwise",
        ("int8", "float32"),
        "int8",
        "what depthwise convolutions compute in; floats are more exact, and faster on x86",
        precisions=("int8",),
    ),
)


@dataclass(frozen=True)
class WriteOptions:
    """How a model is written.

    Attributes:
        requantize: Whether a convolution in integers hands on integers to the next.
        float_depthwise: Whether depthwise convolutions stay in floats.
    """

    requantize: bool = True
    float_depthwise: bool = False

    @classmethod
    def parse(cls, options: Mapping[str, str]) -> WriteOptions:
        """Check options given by name.

        Raises:
            ContractError: an unknown name or value.
        """
        chosen = check_options("ncnn", OPTIONS, options)
        return cls(
            requantize=chosen["requantize"] == "yes",
            float_depthwise=chosen["depthwise"] == "float32",
        )
