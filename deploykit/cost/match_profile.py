"""Layers beside the operators that a runtime's own profiler tells of.

The profiler knows the kernel library's operators, not layers. Where there are as many of them as
layers, and convolutions and matrix products stand at the same places in both lists, the two lists
are taken to be one; otherwise nothing is matched, since a library may fuse, split or reorder.
"""

from __future__ import annotations

from collections.abc import Sequence

from deploykit.cost.layer import LayerCost, ProfiledRun

_PRODUCTS = ("convolution", "fully connected", "gemm", "conv_2d", "fully_connected")


def match_profile(layers: Sequence[LayerCost], run: ProfiledRun) -> dict[str, float]:
    """Name of a layer → microseconds; empty where the lists do not fit."""
    if len(layers) != len(run.ops):
        return {}
    for layer, op in zip(layers, run.ops, strict=True):
        if (layer.mult_adds > 0) != any(word in op.name.lower() for word in _PRODUCTS):
            return {}
    return {layer.name: op.us for layer, op in zip(layers, run.ops, strict=True)}
