"""EfficientNet (Tan and Le 2019, arXiv:1905.11946): one network, scaled by one number.

Compound scaling, equation 3: depth ``1.2^phi``, width ``1.1^phi``, resolution ``1.15^phi``, where
``1.2 * 1.1^2 * 1.15^2`` is about 2, so that mult-adds grow as ``2^phi``. The published B0 to B7
are rounded by hand, and lie up to a step below that curve: B1 is at phi 0.5, B2 at phi 1, B3 at
about 2, B7 between 6 and 7. So there are two rules: ``published`` counts the variants, ``equation``
is the curve.

EfficientNet-Lite leaves out squeeze-and-excite, has ReLU6 for SiLU, and scales neither the stem and
the head nor the depth of the first and the last stage.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import nn

from deploykit.architectures.layers import (
    Activation,
    check_positive,
    conv_bn,
    initialize_weights,
    round_channels,
)
from deploykit.errors import SourceError
from deploykit.preprocess import Preprocess
from deploykit.sources.built_architecture import Architecture

#: Bases of depth, width and resolution, found by a grid search at phi = 1 (section 3.3).
ALPHA, BETA, GAMMA = 1.2, 1.1, 1.15

#: Expansion, kernel, stride, channels and repeats of each stage of B0 (table 1).
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)

STEM_CHANNELS, HEAD_CHANNELS = 32, 1280
SQUEEZE_RATIO = 0.25

#: With the epsilon and the momentum of the authors' code.
_conv_bn = functools.partial(conv_bn, eps=1e-3, momentum=0.01)


@dataclass(frozen=True)
class Scaling:
    """How far a network is from B0.

    Attributes:
        width: Multiplier of channel counts, before `round_channels`.
        depth: Multiplier of a stage's repeats, before rounding up.
        resolution: Height and width of the image, pixels.
        dropout: Before the linear layer, in training.
    """

    width: float
    depth: float
    resolution: int
    dropout: float


#: B0 to B7 as published.
PUBLISHED = (
    Scaling(1.0, 1.0, 224, 0.2),
    Scaling(1.0, 1.1, 240, 0.2),
    Scaling(1.1, 1.2, 260, 0.3),
    Scaling(1.2, 1.4, 300, 0.3),
    Scaling(1.4, 1.8, 380, 0.4),
    Scaling(1.6, 2.2, 456, 0.4),
    Scaling(1.8, 2.6, 528, 0.5),
    Scaling(2.0, 3.1, 600, 0.5),
)

#: Lite0 to Lite4 as published.
PUBLISHED_LITE = (
    Scaling(1.0, 1.0, 224, 0.2),
    Scaling(1.0, 1.1, 240, 0.2),
    Scaling(1.1, 1.2, 260, 0.3),
    Scaling(1.2, 1.4, 280, 0.3),
    Scaling(1.4, 1.8, 300, 0.3),
)


def scale_efficientnet(phi: float, rule: str = "published") -> Scaling:
    """What compound scaling by ``phi`` multiplies B0 by.

    Args:
        phi: With ``published`` 0 to 7, for B0 to B7; with ``equation`` any number from -10 to 10:
            below 0 a network smaller than B0.
        rule: ``published``, or ``equation``: equation 3, the resolution rounded to a multiple of 4
            and the dropout on the line from 0.2 at 0 to 0.5 at 7.

    Raises:
        SourceError: ``phi`` is out of range, or there is no such rule.
    """
    is_number = isinstance(phi, (int, float)) and not isinstance(phi, bool)
    if rule == "published":
        if not is_number or phi not in range(len(PUBLISHED)):
            raise SourceError(
                f"EfficientNet with phi={phi!r}",
                expected="a whole number from 0 to 7, for B0 to B7",
                advice="for what lies between and beyond: rule=equation",
            )
        return PUBLISHED[int(phi)]
    if rule != "equation":
        raise SourceError(f"EfficientNet with rule={rule!r}", expected="published or equation")
    if not is_number or not -10 <= phi <= 10:
        raise SourceError(f"EfficientNet with phi={phi!r}", expected="a number from -10 to 10")
    return Scaling(
        width=BETA**phi,
        depth=ALPHA**phi,
        resolution=max(32, round(224 * GAMMA**phi / 4) * 4),
        dropout=min(0.5, max(0.2, 0.2 + 0.3 * phi / 7)),
    )


class SqueezeExcite(nn.Module):
    """A gate a channel: mean over the image, 1x1, SiLU, 1x1, sigmoid (arXiv:1709.01507).

    Args:
        channels: Of the input and output.
        squeezed: Between the two convolutions.
    """

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.act = nn.SiLU()
        self.excite = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """From (n, channels, h, w) to the same."""
        gate = self.excite(self.act(self.squeeze(x.mean((2, 3), keepdim=True))))
        gated: torch.Tensor = x * gate.sigmoid()
        return gated


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise, squeeze-and-excite, 1x1 without activation; added to its input
    where both have one shape.

    Args:
        in_channels: Of the input.
        out_channels: Of the output.
        expansion: Multiplier of ``in_channels``; with 1 there is no expanding convolution.
        kernel: Of the depthwise convolution.
        stride: Of the depthwise convolution.
        squeezed: Channels inside squeeze-and-excite; 0 for none.
        activation: Behind all but the last convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        expansion: int,
        kernel: int,
        stride: int,
        squeezed: int,
        activation: Activation,
    ) -> None:
        super().__init__()
        middle = in_channels * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(_conv_bn(in_channels, middle, activation=activation))
        layers.append(_conv_bn(middle, middle, kernel, stride, middle, activation=activation))
        if squeezed:
            layers.append(SqueezeExcite(middle, squeezed))
        layers.append(_conv_bn(middle, out_channels))
        self.layers = nn.Sequential(*layers)
        self.adds_input = stride == 1 and in_channels == out_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """From (n, in_channels, h, w) to (n, out_channels, ceil(h/stride), ceil(w/stride))."""
        branch: torch.Tensor = self.layers(x)
        return x + branch if self.adds_input else branch


class EfficientNet(nn.Module):
    """Stem, seven stages, head, mean over the image, linear layer.

    Convolutions pad ``kernel // 2`` on every side; the authors' code pads strided ones on the right
    and below only, which gives other numbers but the same parameters and mult-adds.

    Args:
        scaling: From B0's channels and repeats to this network's.
        num_classes: Length of the output.
        in_chans: Channels of the image.
        lite: Whether it is of the Lite family.
    """

    def __init__(
        self, scaling: Scaling, num_classes: int = 1000, in_chans: int = 3, lite: bool = False
    ) -> None:
        super().__init__()
        activation: Activation = nn.ReLU6 if lite else nn.SiLU
        width = scaling.width
        channels = STEM_CHANNELS if lite else round_channels(STEM_CHANNELS * width)
        self.stem = _conv_bn(in_chans, channels, 3, 2, activation=activation)
        stages: list[nn.Module] = []
        for index, (expansion, kernel, stride, full_width, repeats) in enumerate(STAGES):
            out = round_channels(full_width * width)
            fixed = lite and index in (0, len(STAGES) - 1)
            units: list[nn.Module] = []
            for unit in range(repeats if fixed else math.ceil(repeats * scaling.depth)):
                squeezed = 0 if lite else max(1, int(channels * SQUEEZE_RATIO))
                step = stride if unit == 0 else 1
                units.append(
                    InvertedResidual(channels, out, expansion, kernel, step, squeezed, activation)
                )
                channels = out
            stages.append(nn.Sequential(*units))
        self.stages = nn.Sequential(*stages)
        head = HEAD_CHANNELS if lite else round_channels(HEAD_CHANNELS * width)
        self.head = _conv_bn(channels, head, activation=activation)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(scaling.dropout)
        self.classifier = nn.Linear(head, num_classes)
        initialize_weights(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """From (n, in_chans, height, width) to logits of shape (n, num_classes)."""
        features = self.pool(self.head(self.stages(self.stem(x)))).flatten(1)
        logits: torch.Tensor = self.classifier(self.dropout(features))
        return logits


def build_efficientnet(
    num_classes: int = 1000,
    phi: float = 0,
    rule: str = "published",
    width: float = 1.0,
    depth: float = 1.0,
    in_chans: int = 3,
) -> Architecture:
    """``deploykit/efficientnet``: B0 to B7 for ``phi`` 0 to 7.

    Args:
        num_classes: Length of the output.
        phi: See `scale_efficientnet`.
        rule: See `scale_efficientnet`.
        width: Multiplies the width that ``phi`` gives: networks for small images.
        depth: Multiplies the depth that ``phi`` gives.
        in_chans: Channels of the image.

    Raises:
        SourceError: an argument out of range.
    """
    scaling = scale_efficientnet(phi, rule)
    return _build("efficientnet", scaling, num_classes, width, depth, in_chans, lite=False)


def build_efficientnet_lite(
    num_classes: int = 1000,
    variant: int = 0,
    width: float = 1.0,
    depth: float = 1.0,
    in_chans: int = 3,
) -> Architecture:
    """``deploykit/efficientnet_lite``: Lite0 to Lite4.

    Args:
        num_classes: Length of the output.
        variant: 0 to 4.
        width: Multiplies the variant's width; stem and head stay as they are.
        depth: Multiplies the variant's depth; the first and the last stage stay as they are.
        in_chans: Channels of the image.

    Raises:
        SourceError: an argument out of range.
    """
    if isinstance(variant, bool) or variant not in range(len(PUBLISHED_LITE)):
        raise SourceError(
            f"EfficientNet-Lite with variant={variant!r}",
            expected=f"a whole number from 0 to {len(PUBLISHED_LITE) - 1}",
        )
    scaling = PUBLISHED_LITE[int(variant)]
    return _build("efficientnet_lite", scaling, num_classes, width, depth, in_chans, lite=True)


def _build(
    name: str,
    scaling: Scaling,
    num_classes: int,
    width: float,
    depth: float,
    in_chans: int,
    lite: bool,
) -> Architecture:
    check_positive(name, num_classes=num_classes, width=width, depth=depth, in_chans=in_chans)
    side = scaling.resolution
    scaled = Scaling(scaling.width * width, scaling.depth * depth, side, scaling.dropout)
    network = EfficientNet(scaled, num_classes, in_chans, lite)
    preprocess = (
        Preprocess(size=(side, side), resize=math.floor(side / 0.875), interpolation="bicubic")
        if in_chans == 3
        else None
    )
    return Architecture(f"deploykit/{name}", network, (1, in_chans, side, side), preprocess)
