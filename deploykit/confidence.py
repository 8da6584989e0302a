"""How far a share that was counted on a few samples may be off."""

from __future__ import annotations

import math

#: Of a normal distribution, 95 % lie within so many standard deviations.
_Z_95 = 1.959964


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """The 95 % confidence interval of a share, after Wilson (1927).

    Unlike ``share ± 2 standard errors`` it stays within 0..1 and is not empty at 0 and 1: 16 of 16
    right say at least 81 %.

    Args:
        share: Measured, 0..1.
        count: Number of samples, at least 1.

    Returns:
        Low and high end, 0..1.
    """
    if count < 1:
        raise ValueError(f"a share of {count} samples")
    z2 = _Z_95**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    spread = math.sqrt(share * (1 - share) / count + z2 / (4 * count * count))
    half = _Z_95 * spread / (1 + z2 / count)
    return max(0.0, middle - half), min(1.0, middle + half)
