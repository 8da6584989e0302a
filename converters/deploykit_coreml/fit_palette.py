"""A palette of weights: 2^bits values that stand for all, chosen by k-means in one dimension.

Lloyd's algorithm (Lloyd, "Least squares quantization in PCM", 1982) on sorted weights: clusters
are runs, so a step is a binary search for the borders and differences of running sums for the
means. It starts from values as dense as the cube root of the weights' density, which is best for
many values (Panter and Dite, "Quantization distortion in pulse-count modulation", 1951), from the
quantiles and from equal steps, and the best end is taken; no random numbers, so the same weights
give the same palette.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from deploykit.tensors import Array

_STEPS = 100
_BINS = 4096


def fit_palette(weights: Array, bits: int) -> tuple[Array, Array]:
    """The palette with the least squared error that Lloyd's algorithm finds, and the indices.

    Args:
        weights: float32, any shape, not empty.
        bits: Size of an index: the palette has 2^bits values.

    Returns:
        The palette, float32 (2^bits,), ascending; the indices, uint8, of the weights' shape.
    """
    ordered = np.sort(weights.reshape(-1).astype(np.float64))
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    count = 2**bits
    middles = (np.arange(count) + 0.5) / count
    starts = (
        _cube_root_start(ordered, middles),
        np.quantile(ordered, middles),
        ordered[0] + middles * (ordered[-1] - ordered[0]),
    )
    palettes = [_settled(ordered, sums, start).astype(np.float32) for start in starts]
    errors = [_squared_error(ordered, palette) for palette in palettes]
    palette = palettes[int(np.argmin(errors))]
    return palette, nearest(palette, weights)


def nearest(palette: Array, weights: Array) -> Array:
    """Index of the value of an ascending palette that is nearest to each weight, uint8."""
    borders = (palette[1:].astype(np.float64) + palette[:-1]) / 2
    indices: Array = np.searchsorted(borders, weights.astype(np.float64)).astype(np.uint8)
    return indices


def _cube_root_start(ordered: Array, middles: Array) -> Array:
    counts, edges = np.histogram(ordered, bins=_BINS)
    shares = np.cumsum(np.cbrt(counts))
    start: Array = np.interp(middles * shares[-1], np.concatenate([[0.0], shares]), edges)
    return start


def _settled(ordered: Array, sums: Array, start: Array) -> Array:
    centres = np.sort(start)
    for _ in range(_STEPS):
        ends = np.searchsorted(ordered, (centres[1:] + centres[:-1]) / 2)
        bounds = np.concatenate([[0], ends, [len(ordered)]])
        sizes = np.diff(bounds)
        totals = sums[bounds[1:]] - sums[bounds[:-1]]
        # A cluster without members stays where it is.
        moved = np.where(sizes > 0, totals / np.maximum(sizes, 1), centres)
        if np.array_equal(moved, centres):
            break
        centres = np.sort(moved)
    return centres


def _squared_error(ordered: Array, palette: Array) -> float:
    return float(np.square(palette[nearest(palette, ordered)] - ordered).sum())


def pack_indices(indices: Array, bits: int) -> Array:
    """Indices one behind the other, least significant bit first: uint8 (ceil(n bits / 8),)."""
    planes = (indices.reshape(-1, 1) >> np.arange(bits, dtype=np.uint8)) & 1
    packed: Array = np.packbits(planes.reshape(-1).astype(np.uint8), bitorder="little")
    return packed


def unpack_indices(packed: Array, bits: int, count: int) -> Array:
    """What `pack_indices` packed: uint8 (count,)."""
    planes = np.unpackbits(packed, bitorder="little")[: count * bits].reshape(count, bits)
    indices: Array = (planes << np.arange(bits, dtype=np.uint8)).sum(axis=1).astype(np.uint8)
    return indices
