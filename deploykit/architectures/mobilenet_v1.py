"""MobileNetV1 (Howard et al. 2017, arXiv:1704.04861, table 1) with any width multiplier."""

from __future__ import annotations

import torch
from torch import nn

from deploykit.architectures.layers import (
    check_positive,
    conv_bn,
    initialize_weights,
    round_channels,
)
from deploykit.preprocess import Preprocess
from deploykit.sources.built_architecture import Architecture

#: Output channels and stride of each depthwise-separable convolution.
BLOCKS = (
    (64, 1),
    *((128, 2), (128, 1), (256, 2), (256, 1)),
    *((512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1)),
    *((1024, 2), (1024, 1)),
)


class MobileNetV1(nn.Module):
    """A 3x3 convolution, 13 depthwise-separable ones, the mean over the image, a linear layer.

    Args:
        num_classes: Length of the output.
        width: Multiplier of every channel count, rounded to multiples of 8.
        in_chans: Channels of the image.
        dropout: Before the linear layer, in training.
    """

    def __init__(
        self, num_classes: int = 1000, width: float = 1.0, in_chans: int = 3, dropout: float = 0.0
    ) -> None:
        super().__init__()
        check_positive("MobileNetV1", num_classes=num_classes, width=width, in_chans=in_chans)
        channels = round_channels(32 * width)
        self.stem = conv_bn(in_chans, channels, 3, 2, activation=nn.ReLU6)
        blocks: list[nn.Module] = []
        for full_width, stride in BLOCKS:
            out = round_channels(full_width * width)
            depthwise = conv_bn(channels, channels, 3, stride, channels, activation=nn.ReLU6)
            blocks.append(nn.Sequential(depthwise, conv_bn(channels, out, activation=nn.ReLU6)))
            channels = out
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(channels, num_classes)
        initialize_weights(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """From (n, in_chans, height, width) to logits of shape (n, num_classes)."""
        features = self.pool(self.blocks(self.stem(x))).flatten(1)
        logits: torch.Tensor = self.classifier(self.dropout(features))
        return logits


def build_mobilenet_v1(
    num_classes: int = 1000, width: float = 1.0, in_chans: int = 3, dropout: float = 0.0
) -> Architecture:
    """``deploykit/mobilenet_v1``: see `MobileNetV1`.

    Raises:
        SourceError: an argument out of range.
    """
    network = MobileNetV1(num_classes, width, in_chans, dropout)
    preprocess = Preprocess(size=(224, 224), resize=256) if in_chans == 3 else None
    return Architecture("deploykit/mobilenet_v1", network, (1, in_chans, 224, 224), preprocess)
