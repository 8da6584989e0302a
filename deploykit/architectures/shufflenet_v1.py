"""ShuffleNetV1 (Zhang et al. 2017, arXiv:1707.01083): grouped 1x1 convolutions and the shuffle."""

from __future__ import annotations

import torch
from torch import nn

from deploykit.architectures.layers import check_positive, conv_bn, initialize_weights
from deploykit.errors import SourceError
from deploykit.preprocess import Preprocess
from deploykit.sources.built_architecture import Architecture

#: Groups → output channels of stage 2; stages 3 and 4 have two and four times as many (table 1).
STAGE2_CHANNELS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}

#: Units of stages 2, 3 and 4, the one with stride 2 among them (table 1).
STAGE_UNITS = (4, 8, 4)

STEM_CHANNELS = 24


class ShuffleUnit(nn.Module):
    """Grouped 1x1, shuffle, 3x3 depthwise, grouped 1x1; then added to, or joined with, its input.

    With stride 1 the input is added (figure 2b); with stride 2 its 3x3 average is concatenated
    (figure 2c), so that the branch gives ``out_channels - in_channels``. The bottleneck has a
    quarter of ``out_channels``.

    Args:
        in_channels: Of the input.
        out_channels: Of the output.
        groups: Of both 1x1 convolutions, and of the shuffle.
        stride: 1 or 2; with 1, ``in_channels == out_channels``.
        group_first: Whether the first 1x1 is grouped. It is not in the unit behind the stem, whose
            input has too few channels (section 3.3).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        groups: int,
        stride: int,
        group_first: bool = True,
    ) -> None:
        super().__init__()
        self.groups = groups
        self.stride = stride
        middle = out_channels // 4
        branch = out_channels - in_channels if stride == 2 else out_channels
        self.compress = conv_bn(
            in_channels, middle, groups=groups if group_first else 1, activation=nn.ReLU
        )
        self.depthwise = conv_bn(middle, middle, 3, stride, middle)
        self.expand = conv_bn(middle, branch, groups=groups)
        if stride == 2:
            self.shortcut = nn.AvgPool2d(3, 2, 1)
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """From (n, in_channels, h, w) to (n, out_channels, ceil(h / stride), ceil(w / stride))."""
        branch = self.expand(self.depthwise(shuffle_channels(self.compress(x), self.groups)))
        joined = torch.cat([self.shortcut(x), branch], 1) if self.stride == 2 else x + branch
        result: torch.Tensor = self.act(joined)
        return result


def shuffle_channels(x: torch.Tensor, groups: int) -> torch.Tensor:
    """Channel ``i * (channels / groups) + j`` goes to place ``j * groups + i``.

    Args:
        x: Of shape (n, channels, height, width).
        groups: Divides the channels.
    """
    if groups == 1:
        return x
    n, channels, height, width = x.shape
    grouped = x.view(n, groups, channels // groups, height, width)
    return grouped.transpose(1, 2).reshape(n, channels, height, width)


class ShuffleNetV1(nn.Module):
    """A 3x3 convolution, 3x3 max-pooling, three stages of shuffle units, mean, linear layer.

    Args:
        num_classes: Length of the output.
        groups: 1, 2, 3, 4 or 8.
        width: Multiplier of every channel count. What it gives is rounded to multiples of
            ``4 * groups`` (the stem: of ``groups``), so that every convolution can be grouped.
        in_chans: Channels of the image.
        dropout: Before the linear layer, in training.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        groups: int = 3,
        width: float = 1.0,
        in_chans: int = 3,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if groups not in STAGE2_CHANNELS:
            known = ", ".join(str(g) for g in STAGE2_CHANNELS)
            raise SourceError(f"ShuffleNetV1 with groups={groups!r}", expected=f"one of {known}")
        check_positive("ShuffleNetV1", num_classes=num_classes, width=width, in_chans=in_chans)
        channels = _multiple_of(groups, STEM_CHANNELS * width)
        self.stem = conv_bn(in_chans, channels, 3, 2, activation=nn.ReLU)
        self.pool = nn.MaxPool2d(3, 2, 1)
        out = _multiple_of(4 * groups, STAGE2_CHANNELS[groups] * width)
        stages: list[nn.Module] = []
        for stage, units in enumerate(STAGE_UNITS):
            first = ShuffleUnit(channels, out, groups, stride=2, group_first=stage > 0)
            rest = [ShuffleUnit(out, out, groups, stride=1) for _ in range(units - 1)]
            stages.append(nn.Sequential(first, *rest))
            channels, out = out, 2 * out
        self.stages = nn.Sequential(*stages)
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(channels, num_classes)
        initialize_weights(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """From (n, in_chans, height, width) to logits of shape (n, num_classes)."""
        features = self.mean(self.stages(self.pool(self.stem(x)))).flatten(1)
        logits: torch.Tensor = self.classifier(self.dropout(features))
        return logits


def _multiple_of(divisor: int, channels: float) -> int:
    return max(divisor, round(channels / divisor) * divisor)


def build_shufflenet_v1(
    num_classes: int = 1000,
    groups: int = 3,
    width: float = 1.0,
    in_chans: int = 3,
    dropout: float = 0.0,
) -> Architecture:
    """``deploykit/shufflenet_v1``: see `ShuffleNetV1`.

    Raises:
        SourceError: an argument out of range.
    """
    network = ShuffleNetV1(num_classes, groups, width, in_chans, dropout)
    preprocess = Preprocess(size=(224, 224), resize=256) if in_chans == 3 else None
    return Architecture("deploykit/shufflenet_v1", network, (1, in_chans, 224, 224), preprocess)
