"""How a source is loaded: plain data, so that another process can load the same thing again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class LoadOptions:
    """What the user says of a source beyond its path.

    Attributes:
        arch: ``timm/NAME``, ``torchvision/NAME``, ``deploykit/NAME`` or
            ``package.module:callable``; empty to take the checkpoint's own.
        arch_kwargs: Keyword arguments of the architecture's constructor.
        key: Which entry of a checkpoint holds the weights, or which signature of a SavedModel is
            meant; empty for the stated order of choice.
        input_shape: NCHW; empty for the checkpoint's or architecture's own. In an ONNX file, a
            Keras model or a SavedModel it pins the dynamic axes.
        trust_code: Whether a file that runs code may be loaded: a pickled module, a Keras model
            with layers that are not Keras' own, a program with any operators.
        trust_pickle: The name of ``trust_code`` in earlier versions; it still sets it.
    """

    arch: str = ""
    arch_kwargs: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""
    input_shape: tuple[int, ...] = ()
    trust_code: bool = False
    trust_pickle: InitVar[bool] = False

    def __post_init__(self, trust_pickle: bool) -> None:
        """Take the earlier name for today's."""
        if trust_pickle:
            object.__setattr__(self, "trust_code", True)

    def to_dict(self) -> dict[str, Any]:
        """Plain data; `from_dict` reads it back."""
        return {**asdict(self), "input_shape": list(self.input_shape)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LoadOptions:
        """Read what `to_dict` wrote."""
        return cls(**{**data, "input_shape": tuple(data["input_shape"])})
