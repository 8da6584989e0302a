"""How each family of the zoo is trained. A new family is one more entry of `RECIPES`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from deploykit.errors import SourceError
from deploykit.preprocess import Preprocess


def _fashion_mnist(side: int) -> Preprocess:
    return Preprocess(size=(side, side), mean=(0.2860,) * 3, std=(0.3530,) * 3)


_FASHION_MNIST_64 = _fashion_mnist(64)
"""Grey images scaled up to 64x64: a stride of 32 then leaves 2x2 and not a single pixel."""

_FASHION_MNIST_40 = _fashion_mnist(40)
"""A stride of 32 brings it to 2x2 (20, 10, 5, 3, 2), at less than half the time of 64x64."""


@dataclass(frozen=True)
class TrainingRecipe:
    """A network and the hyperparameters that train it: AdamW, linear warm-up, cosine to zero.

    Attributes:
        family: Name on the command line.
        arch: Whose network it is: ``timm/NAME``, ``torchvision/NAME`` or ``deploykit/NAME``.
        arch_kwargs: What its constructor is given besides ``num_classes``, which the data says.
        preprocess: From an image to the input tensor.
        epochs: Passes over the training images.
        half_size_share: Share of the epochs, the first ones, that see the tensors at half their
            height and width: a third of the time, and the rest makes up for it.
        batch: Images in a step.
        learning_rate: The highest one.
        warmup_share: Share of the steps until then.
        weight_decay: Of weights; never of batch norm or biases.
        label_smoothing: Of the cross entropy.
        shift_px: Largest random shift of a tensor at full size, in pixels either way.
        flip: Whether half of the images are mirrored.
    """

    family: str
    arch: str
    preprocess: Preprocess = _FASHION_MNIST_64
    arch_kwargs: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 12
    half_size_share: float = 0.5
    batch: int = 256
    learning_rate: float = 4e-3
    warmup_share: float = 0.15
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    shift_px: int = 4
    flip: bool = True

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """All fields that are not said elsewhere in a checkpoint, as plain data."""
        elsewhere = ("family", "arch", "arch_kwargs", "preprocess")
        return {k: v for k, v in asdict(self).items() if k not in elsewhere}


def _short(family: str, arch: str, **changed: Any) -> TrainingRecipe:
    """A training of two to four minutes on an idle core: few epochs, many steps, no shifts."""
    settings = {
        "preprocess": _FASHION_MNIST_40,
        "epochs": 5,
        "half_size_share": 0.0,
        "batch": 128,
        "label_smoothing": 0.05,
        "shift_px": 0,
    }
    return TrainingRecipe(family=family, arch=arch, **{**settings, **changed})


RECIPES: dict[str, TrainingRecipe] = {
    recipe.family: recipe
    for recipe in (
        _short(
            "efficientnet",
            "deploykit/efficientnet",
            arch_kwargs={"phi": 0, "width": 0.35, "depth": 0.5},
        ),
        _short(
            "efficientnet_lite0",
            "deploykit/efficientnet_lite",
            arch_kwargs={"variant": 0, "width": 0.35, "depth": 0.5},
        ),
        TrainingRecipe(family="ghostnet", arch="timm/ghostnet_050"),
        _short("mnasnet", "timm/mnasnet_050", epochs=10),
        _short("mobilenet_v1", "deploykit/mobilenet_v1", arch_kwargs={"width": 0.5}),
        _short("mobilenet_v2", "torchvision/mobilenet_v2", arch_kwargs={"width_mult": 0.35}),
        _short(
            "mobilenet_v3_large",
            "torchvision/mobilenet_v3_large",
            arch_kwargs={"width_mult": 0.35},
        ),
        _short(
            "mobilenet_v3_small",
            "torchvision/mobilenet_v3_small",
            arch_kwargs={"width_mult": 0.5},
        ),
        _short("shufflenet_v1", "deploykit/shufflenet_v1", arch_kwargs={"groups": 3, "width": 0.5}),
        _short("shufflenet_v2", "torchvision/shufflenet_v2_x0_5"),
    )
}


def find_recipe(family: str) -> TrainingRecipe:
    """The recipe of a family.

    Raises:
        SourceError: there is none of that name.
    """
    if family not in RECIPES:
        raise SourceError(
            f"the zoo has no family '{family}'", expected=f"one of {', '.join(sorted(RECIPES))}"
        )
    return RECIPES[family]
