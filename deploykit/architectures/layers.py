"""What the networks of this package are made of: channel rounding and Conv + BN + activation."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from torch import nn

from deploykit.errors import SourceError

Activation = Callable[[], nn.Module]


def round_channels(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of ``divisor``, never below it and never below 90 % of ``channels``.

    The rounding that MobileNets and EfficientNets are published with.
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def conv_bn(
    in_channels: int,
    out_channels: int,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    activation: Activation | None = None,
    eps: float = 1e-5,
    momentum: float = 0.1,
) -> nn.Sequential:
    """Convolution without bias (padding ``kernel // 2`` on every side), BatchNorm, activation."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv"] = nn.Conv2d(
        in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False
    )
    layers["bn"] = nn.BatchNorm2d(out_channels, eps=eps, momentum=momentum)
    if activation is not None:
        layers["act"] = activation()
    return nn.Sequential(layers)


def initialize_weights(network: nn.Module) -> None:
    """He's normal initialization by fan-out for convolutions, a small normal one for linear layers.

    A grouped convolution's fan-out is that of one group's.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
            nn.init.normal_(module.weight, 0.0, (2.0 / (fan_out // module.groups)) ** 0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01)
            nn.init.zeros_(module.bias)


def check_positive(what: str, **values: float) -> None:
    """Refuse multipliers and counts that are not above zero.

    Raises:
        SourceError: naming the first that is not.
    """
    for name, value in values.items():
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not value > 0:
            raise SourceError(f"{what} with {name}={value!r}", expected=f"a number above 0: {name}")
