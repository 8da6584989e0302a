from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.calibration.histogram import RunningStatistics
from deploykit.calibration.table import ValueStatistics
from deploykit_quantize.arithmetic import params_from_range
from deploykit_quantize.observe.choose_range import choose_range
from deploykit_quantize.policy import Observer, TensorRule

AFFINE = TensorRule("int8", symmetric=False, per_channel=False)
SYMMETRIC = TensorRule("int8", symmetric=True, per_channel=False)


def statistics_of(data: np.ndarray) -> ValueStatistics:
    running = RunningStatistics(histogram_elements=data.size)
    assert running.add(data.astype(np.float32))
    return running.result()


def with_outlier(count: int = 20_000) -> np.ndarray:
    data = np.random.default_rng(3).standard_normal(count)
    data[17] = 60.0
    return data


def test_minmax_is_all_that_was_seen() -> None:
    data = with_outlier()
    low, high = choose_range(statistics_of(data), Observer("minmax"), AFFINE)
    assert (low, high) == (np.float32(data.min()), np.float32(60.0))


def test_percentile_is_the_central_share() -> None:
    data = with_outlier()
    low, high = choose_range(statistics_of(data), Observer("percentile", 99.0), AFFINE)
    width = (data.max() - data.min()) / 2048
    assert low == pytest.approx(np.quantile(data, 0.005), abs=2 * width)
    assert high == pytest.approx(np.quantile(data, 0.995), abs=2 * width)


def test_percentile_of_a_relu_keeps_its_zero() -> None:
    data = np.maximum(with_outlier(), 0)
    low, high = choose_range(statistics_of(data), Observer("percentile", 99.9), AFFINE)
    assert low == pytest.approx(0.0, abs=60 / 2048)
    assert 2 < high < 5


@pytest.mark.parametrize("rule", [AFFINE, SYMMETRIC])
@pytest.mark.parametrize("relu", [False, True])
def test_mse_beats_minmax_on_the_data_itself(rule: TensorRule, relu: bool) -> None:
    data = with_outlier(1_000_000)
    data = np.maximum(data, 0) if relu else data

    def error(bounds: tuple[float, float]) -> float:
        params = params_from_range(*bounds, rule)
        reals = data.astype(np.float32)
        return float(((params.dequantize(params.quantize(reals)) - reals) ** 2).mean())

    statistics = statistics_of(data)
    chosen = choose_range(statistics, Observer("mse"), rule)
    assert error(chosen) < 0.9 * error(choose_range(statistics, Observer("minmax"), rule))


def test_mse_keeps_the_range_of_even_data() -> None:
    data = np.linspace(-1, 3, 50_000)
    low, high = choose_range(statistics_of(data), Observer("mse"), AFFINE)
    assert low == pytest.approx(-1, abs=0.05)
    assert high == pytest.approx(3, abs=0.05)


@given(
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=60),
    st.sampled_from([Observer("minmax"), Observer("percentile", 90.0), Observer("mse")]),
    st.sampled_from([AFFINE, SYMMETRIC]),
)
def test_a_range_lies_within_what_was_seen(
    data: list[float], observer: Observer, rule: TensorRule
) -> None:
    statistics = statistics_of(np.asarray(data))
    low, high = choose_range(statistics, observer, rule)
    assert low <= high
    assert low >= min(statistics.minimum, 0) - 1e-4
    assert high <= max(statistics.maximum, 0) + 1e-4
