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
        "int8: convolutions that follow one another hand on integers, not floats",
    ),
)


@dataclass(frozen=True)
class WriteOptions:
    """How a model is written.

    Attributes:
        requantize: Whether a convolution in integers hands on integers to the next.
    """

    requantize: bool = True

    @classmethod
    def parse(cls, options: Mapping[str, str]) -> WriteOptions:
        """Check options given by name.

        Raises:
            ContractError: an unknown name or value.
        """
        chosen = check_options("ncnn", OPTIONS, options)
        return cls(requantize=chosen["requantize"] == "yes")
