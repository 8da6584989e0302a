from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deploykit.errors import ParityError
from deploykit.parity import metrics
from deploykit.tensors import QuantParams

STEP = QuantParams((0.125,), (3,))
NUMBERS = st.floats(-1e6, 1e6, width=32)
ARRAYS = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=4), elements=NUMBERS)


@st.composite
def pairs(draw: Any) -> tuple[Any, Any]:
    expected = draw(ARRAYS)
    actual = draw(hnp.arrays(np.float32, expected.shape, elements=NUMBERS))
    return actual, expected


@given(ARRAYS)
def test_equal_arrays_have_no_error(x: Any) -> None:
    assert metrics.max_error_over_range(x, x) == 0
    assert metrics.max_error_lsb(x, x, STEP) == 0
    assert metrics.snr_db(x, x) == math.inf
    assert metrics.cosine(x, x) == pytest.approx(1)
    assert metrics.worst_cosine(x, x) == pytest.approx(1)
    flat = x.reshape(len(x), -1)
    assert metrics.top1_agreement(flat, flat) == 1


@given(pairs(), st.integers(-20, 20))
def test_powers_of_two_and_swapped_samples_change_nothing(pair: Any, power: int) -> None:
    actual, expected = pair
    scale = np.float64(2.0) ** power
    for metric in (metrics.max_error_over_range, metrics.snr_db, metrics.cosine):
        figure = metric(actual, expected)
        scaled = metric(actual * scale, expected * scale)
        swapped = metric(actual[::-1], expected[::-1])
        assert scaled == pytest.approx(figure, rel=1e-9, abs=1e-9)
        assert swapped == pytest.approx(figure, rel=1e-9, abs=1e-9)


@given(pairs(), st.sampled_from([math.nan, math.inf, -math.inf]), st.data())
def test_a_result_that_is_not_finite_passes_no_limit(pair: Any, bad: float, data: Any) -> None:
    actual, expected = pair
    where = tuple(data.draw(st.integers(0, n - 1)) for n in actual.shape)
    actual[where] = bad
    assert metrics.max_error_over_range(actual, expected) == math.inf
    assert metrics.max_error_lsb(actual, expected, STEP) == math.inf
    assert metrics.snr_db(actual, expected) == -math.inf
    assert math.isnan(metrics.cosine(actual, expected))
    assert math.isnan(metrics.worst_cosine(actual, expected))
    rows = len(actual)
    agreement = metrics.top1_agreement(actual.reshape(rows, -1), expected.reshape(rows, -1))
    assert agreement <= (rows - 1) / rows


@given(pairs())
def test_bounds_hold(pair: Any) -> None:
    actual, expected = pair
    assert metrics.max_error_over_range(actual, expected) >= 0
    assert -1 <= metrics.cosine(actual, expected) <= 1
    rows = len(actual)
    flat = actual.reshape(rows, -1), expected.reshape(rows, -1)
    assert 0 <= metrics.top1_agreement(*flat) <= 1
    assert metrics.worst_cosine(*flat) <= 1


@given(pairs(), st.floats(1.5, 100))
def test_more_of_the_same_noise_is_worse(pair: Any, factor: float) -> None:
    actual, expected = (array.astype(np.float64) for array in pair)
    noise = actual - expected
    assume(np.abs(noise).max() > 1e-3)
    assume(np.ptp(expected) > 1e-3)
    louder = expected + noise * factor
    assert metrics.snr_db(louder, expected) < metrics.snr_db(actual, expected)
    assert metrics.max_error_over_range(louder, expected) > metrics.max_error_over_range(
        actual, expected
    )
    assert metrics.snr_db(louder, expected) == pytest.approx(
        metrics.snr_db(actual, expected) - 20 * math.log10(factor), abs=1e-3
    )


@pytest.mark.parametrize("metric", [metrics.max_error_over_range, metrics.snr_db, metrics.cosine])
def test_what_cannot_be_compared_is_refused(metric: Any) -> None:
    one = np.ones((1, 4), dtype=np.float32)
    with pytest.raises(ParityError, match=r"shape \(1, 3\)"):
        metric(one[:, :3], one)
    with pytest.raises(ParityError, match="empty"):
        metric(one[:0], one[:0])
    with pytest.raises(ParityError, match="reference holds NaN"):
        metric(one, np.array([[1, np.nan, 1, 1]], dtype=np.float32))


def test_the_error_is_over_the_width_of_the_range() -> None:
    expected = np.array([-1.0, 0.0, 3.0])
    assert metrics.max_error_over_range(expected + np.array([0, 0.5, -1.0]), expected) == 0.25


def test_a_constant_reference_has_its_magnitude_as_range() -> None:
    assert metrics.max_error_over_range(np.array([-4.0, -5.0]), np.array([-4.0, -4.0])) == 0.25
    zeros = np.zeros(3)
    assert metrics.max_error_over_range(zeros, zeros) == 0
    assert metrics.max_error_over_range(zeros + 1e-30, zeros) == math.inf


def test_snr_by_hand() -> None:
    expected = np.array([3.0, 4.0])  # power 25
    assert metrics.snr_db(expected + np.array([0.3, -0.4]), expected) == pytest.approx(20)
    assert metrics.snr_db(np.zeros(2), expected) == pytest.approx(0)
    assert metrics.snr_db(np.ones(2), np.zeros(2)) == -math.inf
    assert metrics.snr_db(np.zeros(2), np.zeros(2)) == math.inf
    tiny = np.float64(1e-200)  # whose square is zero
    assert metrics.snr_db(expected * 1.1 * tiny, expected * tiny) == pytest.approx(20)


def test_cosine_by_hand() -> None:
    assert metrics.cosine(np.array([1.0, 0.0]), np.array([1.0, 1.0])) == pytest.approx(0.5**0.5)
    assert metrics.cosine(np.array([-2.0]), np.array([3.0])) == -1
    assert metrics.cosine(np.zeros(2), np.ones(2)) == 0
    expected = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert metrics.worst_cosine(np.array([[5.0, 0.0], [1.0, 1.0]]), expected) == pytest.approx(
        0.5**0.5
    )


def test_top1_counts_samples_and_shares_ties() -> None:
    expected = np.array([[1.0, 5.0, 2.0, 0.0], [9.0, 1.0, 1.0, 1.0]])
    swapped = expected[:, ::-1]
    assert metrics.top1_agreement(swapped, expected) == 0
    assert metrics.top1_agreement(np.ones((2, 4)), expected) == 0.25
    assert metrics.top1_agreement(np.array([[0, 7, 7, 0], [1, 0, 0, 0]]), expected) == 0.75
    with pytest.raises(ParityError, match="samples, classes"):
        metrics.top1_agreement(np.zeros((2, 2, 2)), np.zeros((2, 2, 2)))


@given(
    steps=st.integers(0, 100),
    low=st.integers(-128, 27),
    scale=st.floats(2**-13, 8, width=32),
    zero=st.integers(-128, 127),
)
def test_whole_steps_on_the_grid_are_whole(steps: int, low: int, scale: float, zero: int) -> None:
    params = QuantParams((scale,), (zero,))
    grid = params.dequantize(np.array([[low, low + steps]], dtype=np.int8))
    assert metrics.max_error_lsb(grid[:, 1:], grid[:, :1], params) == steps


def test_steps_of_channels_and_between_the_grid() -> None:
    params = QuantParams((0.5, 2.0), (0, 0), axis=1)
    expected = np.zeros((1, 2, 1, 1))
    actual = np.array([1.0, 1.0]).reshape(1, 2, 1, 1)
    assert metrics.max_error_lsb(actual, expected, params) == 2
    assert metrics.max_error_lsb(actual * 1.1, expected, params) == pytest.approx(2.2)
