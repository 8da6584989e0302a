"""The preprocessing contract: how an image becomes the tensor that the network was trained on.

It is one frozen object, carried from the checkpoint to the manifest of the bundle, so that an app
can do exactly what the training did. `Preprocess.apply` is the reference implementation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import Enum
from typing import TYPE_CHECKING, Any

from deploykit.errors import ContractError, DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL.Image import Image

    FloatArray = npt.NDArray[np.float32]
    ByteArray = npt.NDArray[np.uint8]
else:  # the command line's help needs no numpy
    FloatArray = ByteArray = Any

_COLORS = {"RGB": 3, "BGR": 3, "GRAY": 1}
_INTERPOLATIONS = ("nearest", "bilinear", "bicubic")
_GRAY: Mapping[str, float] = {"mean": 0.0, "std": 1.0}
_LARGEST_SIDE = 1 << 14


class ContractOrigin(Enum):
    """Where a preprocessing contract comes from.

    The value is said to the user. An assumed one was never checked against how this very network
    was trained, and a wrong one costs accuracy that no comparison of files can show.
    """

    UNKNOWN = "nothing says how an image becomes the input"
    CHECKPOINT = "from the checkpoint"
    USER = "from the command line"
    ASSUMED = "assumed: what the library's own weights of this architecture are evaluated with"

    @property
    def assumed(self) -> bool:
        """Whether it is a guess."""
        return self is ContractOrigin.ASSUMED


@dataclass(frozen=True)
class Preprocess:
    """From an 8-bit image to a float32 tensor, in this order: colour, resize, crop, normalize.

    ``tensor[c] = (image[c] / 255 - mean[c]) / std[c]``

    Attributes:
        size: Height and width that the network reads, after the crop.
        color: Channel order of the tensor: ``RGB``, ``BGR`` or ``GRAY``. A grey image is
            repeated over three channels where the network wants three.
        resize: Before the centre crop: an int scales the shorter side to it and keeps the aspect
            ratio; a pair is the exact height and width; None resizes straight to ``size``.
        interpolation: ``nearest``, ``bilinear`` or ``bicubic`` (Pillow's, antialiased).
        mean: Per channel, in units of an image scaled to 0..1.
        std: Per channel, same units.
    """

    size: tuple[int, int]
    color: str = "RGB"
    resize: int | tuple[int, int] | None = None
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        import numpy as np

        if self.color not in _COLORS:
            raise ContractError(
                f"preprocess.color is {self.color!r}", expected=f"one of {', '.join(_COLORS)}"
            )
        if self.interpolation not in _INTERPOLATIONS:
            raise ContractError(
                f"preprocess.interpolation is {self.interpolation!r}",
                expected=f"one of {', '.join(_INTERPOLATIONS)}",
            )
        _check_sizes("size", self.size)
        if self.resize is not None:
            _check_sizes("resize", self.resize)
        channels = _COLORS[self.color]
        if len(self.mean) != channels or len(self.std) != channels:
            raise ContractError(
                f"preprocess has {len(self.mean)} means and {len(self.std)} stds",
                expected=f"{channels} of each for {self.color}",
            )
        if min(self.std) <= 0 or not np.isfinite([*self.mean, *self.std]).all():
            raise ContractError(f"preprocess.std is {self.std}", expected="finite and above zero")
        _check_unit("mean", self.mean)
        _check_unit("std", self.std)

    @property
    def channels(self) -> int:
        """Number of channels of the tensor: 3, or 1 for GRAY."""
        return _COLORS[self.color]

    @property
    def tensor_range(self) -> tuple[float, float]:
        """The smallest and largest value that any 8-bit image can give."""
        low = min((0.0 - m) / s for m, s in zip(self.mean, self.std, strict=True))
        high = max((1.0 - m) / s for m, s in zip(self.mean, self.std, strict=True))
        return low, high

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint or a manifest; `from_dict` reads it back."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Preprocess:
        """Read what `to_dict` wrote.

        Raises:
            ContractError: unknown or missing fields, or values that contradict.
        """
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(data) - known)
        if unknown or "size" not in data:
            raise ContractError(
                f"a preprocess contract with fields {sorted(data)}",
                expected=f"'size' and any of {sorted(known - {'size'})}",
            )
        color = data.get("color", cls.color)
        if not isinstance(color, str) or color not in _COLORS:
            raise ContractError(
                f"preprocess.color is {color!r}", expected=f"one of {', '.join(_COLORS)}"
            )
        values: dict[str, Any] = {"color": color, "size": read_sizes("size", data["size"])}
        if not isinstance(values["size"], tuple):
            values["size"] = (values["size"], values["size"])
        if data.get("resize") is not None:
            values["resize"] = read_sizes("resize", data["resize"])
        if "interpolation" in data:
            values["interpolation"] = data["interpolation"]
        for name in ("mean", "std"):
            if name in data or color == "GRAY":
                values[name] = read_channels(name, data.get(name, _GRAY[name]), _COLORS[color])
        return cls(**values)

    def describe(self) -> str:
        """One line: what an image goes through, in order."""
        height, width = self.size
        if self.resize is None:
            sizes = f"resized to {height}x{width}"
        elif isinstance(self.resize, int):
            sizes = f"shorter side to {self.resize}, centre crop {height}x{width}"
        else:
            sizes = f"resized to {self.resize[0]}x{self.resize[1]}, centre crop {height}x{width}"
        mean, std = (", ".join(f"{v:g}" for v in values) for values in (self.mean, self.std))
        low, high = self.tensor_range
        return (
            f"EXIF orientation applied, {self.color}, {sizes} ({self.interpolation}), "
            f"(pixel/255 - [{mean}]) / [{std}], range {low:.3g} to {high:.3g}"
        )

    def apply(self, image: ByteArray | Image) -> FloatArray:
        """One image to one tensor.

        Args:
            image: A Pillow image of 8 bits a channel, or of 16 bits grey (the upper 8 count);
                transparency is dropped, and the orientation that a phone's camera wrote into EXIF
                is applied; or uint8 of shape (H, W), (H, W, 1) or (H, W, 3) in RGB.

        Returns:
            float32 of shape (channels, height, width).

        Raises:
            DataError: an array that is no image, or an image of 32-bit integers or floats.
        """
        import numpy as np
        from PIL import Image as PillowImage
        from PIL import ImageOps

        if isinstance(image, np.ndarray):
            pixels = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
            if pixels.dtype != np.uint8 or not (
                pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
            ):
                raise DataError(
                    f"an array of dtype {image.dtype} and shape {image.shape} as an image",
                    expected="uint8 of shape (H, W), (H, W, 1) or (H, W, 3)",
                )
            image = PillowImage.fromarray(pixels)
        image = _in_8_bits(ImageOps.exif_transpose(image)).convert(
            "L" if self.color == "GRAY" else "RGB"
        )
        image = self._resized(image)
        values: FloatArray = np.asarray(image, dtype=np.float32) / np.float32(255)
        if self.color == "GRAY":
            values = values[..., None]
        if self.color == "BGR":
            values = values[..., ::-1]
        mean: FloatArray = np.array(self.mean, np.float32)
        std: FloatArray = np.array(self.std, np.float32)
        normalized: FloatArray = np.divide(np.subtract(values, mean), std)
        return np.ascontiguousarray(normalized.transpose(2, 0, 1), dtype=np.float32)

    def _resized(self, image: Image) -> Image:
        from PIL import Image as PillowImage

        height, width = self.size
        if self.resize is None:
            target = (height, width)
        elif isinstance(self.resize, int):
            # The longer side is cut off to whole pixels, and the crop's corner rounded half to
            # even, as torchvision's Resize and CenterCrop do it: to the pixel the same image.
            shorter = min(image.size)
            target = (
                max(height, self.resize * image.size[1] // shorter),
                max(width, self.resize * image.size[0] // shorter),
            )
        else:
            target = self.resize
        if (image.size[1], image.size[0]) != target:
            method = PillowImage.Resampling[self.interpolation.upper()]
            image = image.resize((target[1], target[0]), method)
        top, left = round((target[0] - height) / 2), round((target[1] - width) / 2)
        if (top, left) != (0, 0) or target != (height, width):
            image = image.crop((left, top, left + width, top + height))
        return image


def read_sizes(name: str, value: object) -> int | tuple[int, int]:
    """A size, as JSON or a flag gives it: one whole number, or (height, width).

    Raises:
        ContractError: anything else.
    """
    pair = isinstance(value, (list, tuple))
    numbers: list[Any] = list(value) if isinstance(value, (list, tuple)) else [value]
    whole = all(isinstance(n, int) and not isinstance(n, bool) for n in numbers)
    if not whole or len(numbers) != (2 if pair else 1):
        raise ContractError(
            f"preprocess.{name} is {value!r:.80}", expected="a whole number, or [height, width]"
        )
    sizes = (numbers[0], numbers[1]) if pair else numbers[0]
    _check_sizes(name, sizes)
    return sizes


def read_channels(name: str, value: object, channels: int) -> tuple[float, ...]:
    """A mean or std, as JSON or a flag gives it: one number for all channels, or one for each.

    Raises:
        ContractError: anything else.
    """
    given: list[Any] = list(value) if isinstance(value, (list, tuple)) else [value]
    numbers = given if isinstance(value, (list, tuple)) else given * channels
    if not all(isinstance(n, (int, float)) and not isinstance(n, bool) for n in numbers):
        raise ContractError(
            f"preprocess.{name} is {value!r:.80}", expected=f"a number, or {channels} numbers"
        )
    return tuple(float(n) for n in numbers)


def _check_sizes(name: str, sizes: int | tuple[int, ...]) -> None:
    pair = (sizes, sizes) if isinstance(sizes, int) else sizes
    if len(pair) != 2 or not all(
        isinstance(side, int) and 1 <= side <= _LARGEST_SIDE for side in pair
    ):
        raise ContractError(
            f"preprocess.{name} is {sizes!r:.80}",
            expected=f"height and width in pixels, 1 to {_LARGEST_SIDE:,}",
        )


def _check_unit(name: str, values: tuple[float, ...]) -> None:
    """Refuse what is meant for pixels of 0 to 255.

    Raises:
        ContractError: with the values that were probably meant.
    """
    if max(abs(v) for v in values) > 1:
        meant = ", ".join(f"{v / 255:.4g}" for v in values)
        raise ContractError(
            f"preprocess.{name} is {', '.join(f'{v:g}' for v in values)}",
            expected="values for pixels scaled to 0..1, so none above 1",
            advice=f"for pixels of 0 to 255 that is {meant}",
        )


def _in_8_bits(image: Image) -> Image:
    """Pillow would clip deeper pixels to white instead of scaling them."""
    import numpy as np
    from PIL import Image as PillowImage

    if image.mode.startswith("I;16"):
        return PillowImage.fromarray((np.asarray(image, dtype=np.uint16) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise DataError(
            f"an image of Pillow's mode {image.mode}: 32 bits a pixel, of no known range",
            expected="8 bits a channel, or 16 bits grey",
        )
    return image
