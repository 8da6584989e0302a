from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deploykit.calibration.histogram import BINS, RunningStatistics, choose_stride

floats = st.floats(-1e6, 1e6, width=32)
chunks = st.lists(
    hnp.arrays(np.float32, st.integers(1, 40), elements=floats), min_size=1, max_size=6
)


def statistics_of(arrays: list[np.ndarray], elements: int = 10_000) -> RunningStatistics:
    running = RunningStatistics(histogram_elements=elements)
    for array in arrays:
        assert running.add(array)
    return running


@given(chunks)
def test_a_stream_has_the_statistics_of_the_whole(arrays: list[np.ndarray]) -> None:
    result = statistics_of(arrays).result()
    whole = np.concatenate(arrays).astype(np.float64)
    assert (result.minimum, result.maximum) == (whole.min(), whole.max())
    assert result.count == whole.size == sum(result.histogram)
    assert len(result.histogram) == BINS
    size = np.abs(whole).max()
    assert result.mean == pytest.approx(whole.mean(), abs=1e-5 * size + 1e-12)
    assert result.std == pytest.approx(whole.std(), abs=2e-3 * size + 1e-12)


@given(chunks)
def test_every_element_is_counted_next_to_its_bin(arrays: list[np.ndarray]) -> None:
    result = statistics_of(arrays).result()
    whole = np.sort(np.concatenate(arrays).astype(np.float64))
    if result.minimum == result.maximum:
        assert result.histogram[0] == whole.size
        return
    # A fine bin is no wider than two final ones: cumulative counts agree two bins to each side.
    width = (result.maximum - result.minimum) / BINS
    edges = result.minimum + width * np.arange(1, BINS)
    below = np.cumsum(result.histogram)[:-1]
    assert (below >= np.searchsorted(whole, edges - 3 * width)).all()
    assert (below <= np.searchsorted(whole, edges + 3 * width)).all()


def test_the_order_of_the_stream_does_not_matter_to_the_shape() -> None:
    rng = np.random.default_rng(0)
    arrays = [(rng.standard_normal(4000) * 2.0**k).astype(np.float32) for k in range(-6, 6)]
    forward = np.cumsum(statistics_of(arrays).result().histogram)
    backward = np.cumsum(statistics_of(arrays[::-1]).result().histogram)
    assert np.abs(forward - backward).max() <= 0.05 * forward[-1]
    exact, _ = np.histogram(np.concatenate(arrays), BINS)
    assert np.abs(np.cumsum(exact) - forward).max() <= 0.05 * forward[-1]


def test_memory_stays_fixed_while_the_range_grows() -> None:
    running = RunningStatistics()
    for exponent in range(-40, 40):
        assert running.add(np.float32([2.0**exponent, -(2.0**exponent)]))
    assert running._histogram._counts.size == 2 * BINS
    assert sum(running.result().histogram) == 160


def test_the_histogram_takes_a_share_and_the_rest_counts_elsewhere() -> None:
    data = np.zeros((8, 64, 64), np.float32)
    data[3, 17, 5] = 7.0
    data[0, 0, 0] = -1.0
    result = statistics_of([data], elements=500).result()
    assert (result.minimum, result.maximum) == (-1.0, 7.0)
    assert result.count == data.size
    assert 250 < sum(result.histogram) <= 500


@given(st.integers(1, 10**6), st.integers(1, 10**4))
def test_strides_visit_every_residue(size: int, wanted: int) -> None:
    stride = choose_stride(size, wanted)
    assert math.gcd(stride, size) == 1
    assert len(range(0, size, stride)) <= wanted or size <= wanted


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_taken(value: float) -> None:
    running = RunningStatistics()
    assert running.add(np.float32([1.0]))
    assert not running.add(np.float32([2.0, value]))
    assert running.result().count == 1
