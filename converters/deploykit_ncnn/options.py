"""The options of this target, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deploykit.target_options import SOFTMAX, TargetOption, check_options

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
        ("float32", "int8"),
        "float32",
        "what depthwise convolutions compute in; floats are more exact, and faster on ARM and x86",
        precisions=("int8",),
    ),
    TargetOption(
        "fp16_workaround",
        ("yes", "no"),
        "yes",
        "depthwise layers that ncnn's float16 kernel for ARM computes wrongly compute in float32",
    ),
    SOFTMAX,
)


@dataclass(frozen=True)
class WriteOptions:
    """How a model is written.

    Attributes:
        requantize: Whether a convolution in integers hands on integers to the next.
        float_depthwise: Whether depthwise convolutions stay in floats.
        fp16_workaround: Whether a layer that `deploykit_ncnn.fp16_workaround` names is kept from
            computing in float16.
    """

    requantize: bool = True
    float_depthwise: bool = True
    fp16_workaround: bool = True

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
            fp16_workaround=chosen["fp16_workaround"] == "yes",
        )
