"""What is said of a tensor: name, shape, dtype, layout, and how its integers stand for reals.

`TensorSpec` is the contract of an input or output of a stage or an artefact. Parity is verified in
float32 and in the source's layout (NCHW); `TensorSpec.encode` and `TensorSpec.decode` are the only
place where that form and a runtime's own (NHWC, int8, ...) meet.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from deploykit import json_file
from deploykit.errors import ContractError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[Any]
    FloatArray = npt.NDArray[np.float32]
else:  # the command line's help needs no numpy
    Array = FloatArray = Any

Layout = Literal["NCHW", "NHWC", "CHW", "plain"]

_DTYPES = ("float32", "float16", "int8", "uint8", "int16", "int32", "int64", "bool")
_INT_DTYPES = ("int8", "uint8", "int16", "int32")


@dataclass(frozen=True)
class QuantParams:
    """Affine quantization: ``real = scale * (integer - zero_point)``.

    Attributes:
        scale: One positive float (per tensor), or one a channel.
        zero_point: One integer for each scale.
        dtype: ``int8``, ``uint8``, ``int16`` or ``int32``.
        axis: The channel axis if there is one scale a channel, else None.
    """

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    dtype: str = "int8"
    axis: int | None = None

    def __post_init__(self) -> None:
        if self.dtype not in _INT_DTYPES:
            raise ContractError(
                f"quantized dtype {self.dtype!r}", expected=f"one of {', '.join(_INT_DTYPES)}"
            )
        if not self.scale or len(self.scale) != len(self.zero_point):
            raise ContractError(
                f"{len(self.scale)} scales and {len(self.zero_point)} zero points",
                expected="as many of one as of the other, and at least one",
            )
        if self.axis is None and len(self.scale) != 1:
            raise ContractError(
                f"{len(self.scale)} scales without an axis", expected="an axis, or one scale"
            )
        # One scale a channel are many, and every clone and fold makes them anew: no Python loops.
        if not (all(map(math.isfinite, self.scale)) and min(self.scale) > 0):
            raise ContractError("a scale that is not positive and finite")
        low, high = self.bounds
        if not (low <= min(self.zero_point) and max(self.zero_point) <= high):
            raise ContractError(f"a zero point outside of {self.dtype}")

    @property
    def bounds(self) -> tuple[int, int]:
        """Smallest and largest integer of the dtype."""
        import numpy as np

        info = np.iinfo(self.dtype)
        return int(info.min), int(info.max)

    @property
    def per_channel(self) -> bool:
        """Whether there is one scale a channel."""
        return self.axis is not None

    def _broadcast(self, rank: int) -> tuple[Array, Array]:
        import numpy as np

        scale = np.asarray(self.scale, dtype=np.float32)
        zero = np.asarray(self.zero_point, dtype=np.float32)
        if self.axis is None:
            return scale[0], zero[0]
        shape = [1] * rank
        shape[self.axis] = len(self.scale)
        return scale.reshape(shape), zero.reshape(shape)

    def quantize(self, real: Array) -> Array:
        """Nearest integers, ties to even, saturated to the dtype (ONNX QuantizeLinear)."""
        import numpy as np

        scale, zero = self._broadcast(real.ndim)
        low, high = self.bounds
        steps = np.rint(np.asarray(real, dtype=np.float32) / scale)
        if self.dtype == "int32":  # float32 does not hold every int32: add and clip in float64
            steps = steps.astype(np.float64)
        integers: Array = np.clip(steps + zero, low, high).astype(self.dtype)
        return integers

    def dequantize(self, integers: Array) -> FloatArray:
        """The reals that the integers stand for, float32 (ONNX DequantizeLinear)."""
        import numpy as np

        scale, zero = self._broadcast(integers.ndim)
        centred = integers.astype(np.float64 if self.dtype == "int32" else np.float32) - zero
        return np.asarray(centred * scale, dtype=np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a manifest; `from_dict` reads it back."""
        return {
            "scale": list(self.scale),
            "zero_point": list(self.zero_point),
            "dtype": self.dtype,
            "axis": self.axis,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> QuantParams:
        """Read what `to_dict` wrote.

        Raises:
            KeyError, ValueError, TypeError: something is missing, or of another type.
            ContractError: the values contradict.
        """
        axis = data["axis"]
        return cls(
            scale=tuple(json_file.number(s, "a scale") for s in data["scale"]),
            zero_point=tuple(
                json_file.whole(z, "a zero point", least=-(2**31)) for z in data["zero_point"]
            ),
            dtype=data["dtype"],
            axis=None if axis is None else json_file.whole(axis, "an axis"),
        )


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a stage or an artefact.

    Attributes:
        name: Its name there.
        shape: Its static shape, in its own layout.
        dtype: numpy's name of its element type.
        layout: ``NCHW`` or ``NHWC`` for images and feature maps, ``CHW`` for one sample of
            anything without the batch axis (``shape`` has none either), ``plain`` for all else.
        quantization: How its integers stand for reals; None for floats.
        channel_order: Which channel (axis 1 of NCHW) of the value each position holds, where a
            target holds them in another order; empty for their own.
        tensor: What the runtime calls it, where its format has names of its own; empty for
            ``name``.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    layout: Layout = "plain"
    quantization: QuantParams | None = None
    channel_order: tuple[int, ...] = ()
    tensor: str = ""

    @property
    def runtime_name(self) -> str:
        """What the runtime calls it."""
        return self.tensor or self.name

    @property
    def batch(self) -> int:
        """Number of samples that the tensor holds."""
        if self.layout == "CHW" or not self.shape:
            return 1
        return max(1, self.shape[0])

    def encode(self, value: FloatArray) -> Array:
        """From float32 in NCHW (or plain) to what the runtime reads.

        Raises:
            ContractError: the value's shape is not this tensor's.
        """
        import numpy as np

        held = value[:, list(self.channel_order)] if self.channel_order else value
        moved = np.moveaxis(held, 1, -1) if self.layout == "NHWC" and value.ndim == 4 else held
        if self.layout == "CHW":
            fits = moved.shape == (1, *self.shape)
            moved = moved[0] if fits else moved
        else:
            fits = moved.shape[1:] == self.shape[1:]
        if not fits:
            raise ContractError(
                f"input {self.name!r} was given shape {tuple(value.shape)}",
                expected=f"{self.shape} in layout {self.layout}",
            )
        if self.quantization is not None:
            moved = self.quantization.quantize(moved)
        # ascontiguousarray gives a scalar one axis.
        return np.asarray(moved, dtype=self.dtype, order="C")

    def decode(self, raw: Array) -> FloatArray:
        """From what the runtime wrote to float32 in NCHW (or plain).

        Of layout ``CHW`` a runtime may have left out axes of length 1.
        """
        import numpy as np

        real = (
            raw.astype(np.float32)
            if self.quantization is None
            else (self.quantization.dequantize(raw))
        )
        moved = np.moveaxis(real, -1, 1) if self.layout == "NHWC" and real.ndim == 4 else real
        if self.layout == "CHW":
            same_size = real.size == math.prod(self.shape)
            moved = real.reshape((1, *self.shape)) if same_size else real[np.newaxis]
        return moved[:, np.argsort(self.channel_order)] if self.channel_order else moved

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a manifest; `from_dict` reads it back."""
        data = {
            "name": self.name,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "layout": self.layout,
            "quantization": self.quantization.to_dict() if self.quantization else None,
        }
        data |= {"channel_order": list(self.channel_order)} if self.channel_order else {}
        return data | ({"tensor": self.tensor} if self.tensor else {})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TensorSpec:
        """Read what `to_dict` wrote.

        Raises:
            KeyError, ValueError, TypeError: something is missing, or of another type.
            ContractError: the values contradict.
        """
        params = data["quantization"]
        name = json_file.text(data["name"], "the name of a tensor")
        shape = tuple(
            json_file.whole(d, f"a dimension of '{name}'")
            for d in json_file.array(data["shape"], f"the shape of '{name}'")
        )
        if data["layout"] not in get_args(Layout) or data["dtype"] not in _DTYPES:
            raise ValueError(f"'{name}' is {data['dtype']!r} in layout {data['layout']!r}")
        order = tuple(json_file.whole(c, "a channel") for c in data.get("channel_order", ()))
        if sorted(order) != list(range(len(order))):
            raise ValueError(f"the channels of '{name}' are in the order {order[:20]}")
        return cls(
            name=name,
            shape=shape,
            dtype=data["dtype"],
            layout=data["layout"],
            quantization=QuantParams.from_dict(params) if params else None,
            channel_order=order,
            tensor=json_file.text(data.get("tensor", ""), "the name in the runtime"),
        )
