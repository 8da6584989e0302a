"""Palettes: as good as they can be, packed as the format says, the same each time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deploykit_coreml.fit_palette import fit_palette, nearest, pack_indices, unpack_indices

WEIGHTS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=9),
    elements=st.floats(-8, 8, width=32),
)


def test_few_values_are_exact() -> None:
    values = np.asarray([-1.5, 0.25, 3.0], np.float32)
    weights = values[np.random.default_rng(0).integers(0, 3, (7, 5))]
    palette, indices = fit_palette(weights, 4)
    np.testing.assert_array_equal(palette[indices], weights)


@settings(max_examples=40, deadline=None)
@given(WEIGHTS, st.sampled_from([4, 6, 8]))
def test_each_weight_gets_the_nearest_value(weights: np.ndarray, bits: int) -> None:
    palette, indices = fit_palette(weights, bits)
    assert palette.shape == (2**bits,)
    assert indices.shape == weights.shape
    distance = np.abs(palette[indices].astype(np.float64) - weights)
    best = np.abs(palette.astype(np.float64) - weights[..., None].astype(np.float64)).min(axis=-1)
    np.testing.assert_allclose(distance, best, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("bits", "share"), [(4, 0.7), (6, 0.95)])
def test_better_than_equal_steps(bits: int, share: float) -> None:
    weights = np.random.default_rng(1).standard_normal(5000).astype(np.float32)
    palette, indices = fit_palette(weights, bits)
    even = np.linspace(weights.min(), weights.max(), 2**bits).astype(np.float32)
    error = np.square(palette[indices] - weights).mean()
    assert error < share * np.square(even[nearest(even, weights)] - weights).mean()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 15), min_size=1, max_size=50), st.sampled_from([4, 6, 8]))
def test_packing_is_undone(numbers: list[int], bits: int) -> None:
    indices = np.asarray(numbers, np.uint8)
    packed = pack_indices(indices, bits)
    assert len(packed) == -(-len(numbers) * bits // 8)
    np.testing.assert_array_equal(unpack_indices(packed, bits, len(numbers)), indices)


def test_packing_starts_with_the_least_significant_bits() -> None:
    # The example of the format's documentation, with 4 bits: first element in the low half.
    np.testing.assert_array_equal(pack_indices(np.asarray([1, 2, 3], np.uint8), 4), [0x21, 0x03])
