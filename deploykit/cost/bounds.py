"""The algebra of efficient network design, as plain functions.

Sources: Howard et al. 2017 (MobileNets), Zhang et al. 2018 (ShuffleNet), Ma et al. 2018
(ShuffleNet V2, guidelines G1 and G2), Han et al. 2020 (GhostNet). In these papers B, "FLOPs",
counts mult-adds, and the memory-access cost counts elements; so do the functions here.
"""

from __future__ import annotations

import math


def depthwise_separable_ratio(out_channels: int, kernel: int) -> float:
    """Cost of depthwise + pointwise over a standard convolution: 1/N + 1/k^2 (MobileNets, 3.1).

    It holds for mult-adds and for parameters (without biases).
    """
    return 1 / out_channels + 1 / kernel**2


def pointwise_mac_elements(area: int, channels_in: int, channels_out: int, groups: int = 1) -> int:
    """Memory-access cost of a 1x1 convolution: hw (c1 + c2) + c1 c2 / g (ShuffleNet V2, eq. 1, 2).

    Args:
        area: h w, of a convolution with stride 1.
        channels_in: c1.
        channels_out: c2.
        groups: g.
    """
    return area * (channels_in + channels_out) + channels_in * channels_out // groups


def pointwise_mac_bound(area: int, mult_adds: int) -> float:
    """The least that `pointwise_mac_elements` can be at these mult-adds, reached at c1 = c2.

    2 sqrt(hw B) + B / hw, by the inequality of the means (ShuffleNet V2, G1).
    """
    return 2 * math.sqrt(area * mult_adds) + mult_adds / area


def grouped_mac_elements(area: int, channels_in: int, mult_adds: int, groups: int) -> float:
    """Memory-access cost of a grouped 1x1 convolution at fixed input and mult-adds.

    hw c1 + B g / c1 + B / hw: it grows with the groups (ShuffleNet V2, G2).
    """
    return area * channels_in + mult_adds * groups / channels_in + mult_adds / area


def ghost_speed_up(channels_in: int, kernel: int, ratio: int, cheap_kernel: int) -> float:
    """Mult-adds of a convolution over those of a Ghost module (GhostNet, eq. 4).

    c k k / (c k k / s + (s - 1) / s d d), about s where d is near k and s far below c.
    """
    full = channels_in * kernel**2
    return full / (full / ratio + (ratio - 1) / ratio * cheap_kernel**2)
