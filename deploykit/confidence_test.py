from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.confidence import wilson_interval


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [
        (16, 16, 0.8064, 1.0),
        (0, 10, 0.0, 0.2775),
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
    ],
)
def test_published_intervals(right: int, count: int, low: float, high: float) -> None:
    """The last two are examples of Newcombe (1998), method 3."""
    assert wilson_interval(right / count, count) == pytest.approx((low, high), abs=1e-4)


@given(st.integers(1, 5000), st.floats(0, 1))
def test_the_share_lies_within_and_the_ends_within_0_and_1(count: int, share: float) -> None:
    low, high = wilson_interval(share, count)
    assert 0 <= low <= share + 1e-9
    assert share - 1e-9 <= high <= 1


def test_more_samples_say_more() -> None:
    widths = [high - low for low, high in (wilson_interval(0.9, n) for n in (16, 64, 1000))]
    assert widths == sorted(widths, reverse=True)


def test_no_sample_has_no_interval() -> None:
    with pytest.raises(ValueError, match="0 samples"):
        wilson_interval(1.0, 0)
