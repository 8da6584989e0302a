from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deploykit.errors import DataError
from deploykit.tensors import QuantParams
from deploykit_quantize.arithmetic import (
    LARGEST_BIAS,
    SCALE_OF_ZEROS,
    SMALLEST_SCALE,
    bias_params,
    fit_weight_params,
    limit_weight_params,
    params_from_range,
    quantize_bias,
    quantize_weights_to,
    weight_params,
)
from deploykit_quantize.policy import TensorRule

INT8 = TensorRule("int8", symmetric=False, per_channel=False)
UINT8 = TensorRule("uint8", symmetric=False, per_channel=False)
SYMMETRIC = TensorRule("int8", symmetric=True, per_channel=False)
WEIGHTS = TensorRule("int8", symmetric=True, per_channel=True)

bounds = st.floats(-1e6, 1e6, width=32)
ranges = st.tuples(bounds, bounds).map(lambda r: (min(r), max(r)))
rules = st.sampled_from([INT8, UINT8, SYMMETRIC])
shares = hnp.arrays(np.float64, 32, elements=st.floats(0, 1))
weights = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3)),
    elements=st.floats(-100, 100, width=32),
)


@given(ranges, rules, shares)
def test_round_trip_within_half_a_step_inside_the_range(
    bounds: tuple[float, float], rule: TensorRule, shares: np.ndarray
) -> None:
    low, high = bounds
    params = params_from_range(low, high, rule)
    scale, (zero,) = params.scale[0], params.zero_point
    lowest, highest = params.bounds
    # What the integers reach; rounding the zero point may cut half a step off one end.
    reach = (lowest - zero) * scale, (highest - zero) * scale
    assert reach[0] <= min(low, 0.0) + 0.5001 * scale
    assert reach[1] >= max(high, 0.0) - 0.5001 * scale
    reals = np.clip(low + (high - low) * shares, *reach).astype(np.float32)
    error = np.abs(params.dequantize(params.quantize(reals)).astype(np.float64) - reals)
    assert (error <= scale * 0.5001 + np.abs(reals) * 2.0**-22).all()


@given(ranges, rules)
def test_zero_is_exact(bounds: tuple[float, float], rule: TensorRule) -> None:
    params = params_from_range(*bounds, rule)
    assert params.dequantize(params.quantize(np.zeros(1, np.float32)))[0] == 0.0


@given(ranges, rules, shares)
def test_monotonic_and_saturating(
    bounds: tuple[float, float], rule: TensorRule, shares: np.ndarray
) -> None:
    low, high = bounds
    params = params_from_range(low, high, rule)
    width = high - low + 1.0
    reals = np.sort(low - width + 3 * width * shares).astype(np.float32)
    integers = params.quantize(reals).astype(int)
    assert (np.diff(integers) >= 0).all()
    beyond = params.quantize(np.float32([-np.inf, np.inf]))
    assert tuple(map(int, beyond)) == params.bounds


def test_ties_go_to_the_even_integer() -> None:
    params = QuantParams((1.0,), (0,))
    reals = np.float32([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5])
    assert params.quantize(reals).tolist() == [-2, -2, 0, 0, 2, 2]
    # The zero point of -0.5 .. 254.5 is -127.5: a tie.
    assert params_from_range(-0.5, 254.5, INT8).zero_point == (-128,)
    assert params_from_range(-1.5, 253.5, INT8).zero_point == (-126,)


def test_known_parameters() -> None:
    assert params_from_range(0.0, 255.0, INT8) == QuantParams((1.0,), (-128,))
    assert params_from_range(0.0, 255.0, UINT8) == QuantParams((1.0,), (0,), "uint8")
    assert params_from_range(10.0, 255.0, INT8) == QuantParams((1.0,), (-128,))
    assert params_from_range(-255.0, -10.0, INT8) == QuantParams((1.0,), (127,))
    assert params_from_range(-254.0, 127.0, SYMMETRIC) == QuantParams((2.0,), (0,))
    assert params_from_range(0.0, 0.0, INT8) == QuantParams((1.0,), (-128,))
    assert params_from_range(0.0, 1e-44, INT8).scale == (SMALLEST_SCALE,)


@pytest.mark.parametrize("bounds", [(1.0, 0.0), (0.0, np.inf), (np.nan, 1.0)])
def test_impossible_ranges_are_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(DataError, match="a range of"):
        params_from_range(*bounds, INT8)


@given(weights, st.sampled_from([0, 1, 2, None]))
def test_weights_are_symmetric_and_within_half_a_step(data: np.ndarray, axis: int | None) -> None:
    params = weight_params(data, axis, WEIGHTS)
    integers = quantize_weights_to(params, data)
    assert set(params.zero_point) == {0}
    assert integers.min() >= -127
    scales = np.asarray(params.scale)
    assert scales.size == (1 if axis is None else data.shape[axis])
    shape = [1, 1, 1]
    if axis is not None:
        shape[axis] = -1
    error = np.abs(params.dequantize(integers).astype(np.float64) - data)
    assert (error <= scales.reshape(shape) * 0.5001 + np.abs(data) * 2.0**-22).all()


def test_channels_of_zeros_get_a_scale_that_keeps_their_bias_precise() -> None:
    data = np.float32([[0.0, 0.0], [1.27, 0.0], [12.7, 1.0]])
    assert weight_params(data, 0, WEIGHTS).scale == pytest.approx((0.01, 0.01, 0.1))
    assert weight_params(0 * data, 0, WEIGHTS).scale == (SCALE_OF_ZEROS,) * 3
    params = weight_params(np.float32([[1e-30], [1.27]]), 0, WEIGHTS)
    assert params.scale[0] == pytest.approx(0.01 * 2.0**-20)


def test_weights_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DataError, match="not finite"):
        weight_params(np.float32([[np.inf]]), 0, WEIGHTS)


@given(
    hnp.arrays(np.float32, 6, elements=st.floats(-1e6, 1e6, width=32)),
    st.floats(2.0**-30, 100),
    st.lists(st.floats(2.0**-40, 10), min_size=6, max_size=6),
)
def test_a_bias_fits_into_int32_and_is_within_half_a_step(
    bias: np.ndarray, input_scale: float, weight_scales: list[float]
) -> None:
    data = QuantParams((float(np.float32(input_scale)),), (5,))
    weights = QuantParams(tuple(float(np.float32(s)) for s in weight_scales), (0,) * 6, axis=0)
    fitted = fit_weight_params(bias, data, weights)
    assert all(f >= w for f, w in zip(fitted.scale, weights.scale, strict=True))
    params = bias_params(data, fitted)
    assert params.dtype == "int32"
    assert set(params.zero_point) == {0}
    integers = quantize_bias(bias, params)
    assert np.abs(integers.astype(np.int64)).max() <= LARGEST_BIAS * 1.001
    error = np.abs(integers * np.asarray(params.scale) - bias)
    assert (error <= np.asarray(params.scale) * 0.5001).all()


def test_scales_that_fit_are_kept() -> None:
    data, weights = QuantParams((0.5,), (0,)), QuantParams((0.25, 0.125), (0, 0), axis=0)
    assert fit_weight_params(np.float32([100.0, -3.0]), data, weights) == weights
    assert bias_params(data, weights).scale == (0.125, 0.0625)


def test_a_bias_beyond_int32_is_refused() -> None:
    with pytest.raises(DataError, match="fits into int32"):
        quantize_bias(np.float32([1.0]), QuantParams((1e-12,), (0,), "int32"))


def test_bias_of_grouped_transposed_convolution_repeats_the_scales() -> None:
    data, weights = QuantParams((0.5,), (0,)), QuantParams((1.0, 2.0), (0, 0), axis=1)
    params = bias_params(data, weights, (6,))
    assert params.scale == (0.5, 1.0) * 3
    fitted = fit_weight_params(np.float32([0, 0, 0, 0, 2.0**32, 0]), data, weights)
    assert fitted.scale[0] == pytest.approx(2.0**32 / 0.5 / LARGEST_BIAS)
    assert fitted.scale[1] == 2.0


def test_one_step_of_the_products_is_below_256_steps_of_the_output() -> None:
    data, output = QuantParams((0.5,), (0,)), QuantParams((2.0,), (0,))
    weights = QuantParams((0.25, 5000.0), (0, 0), "int8", 0)
    limited = limit_weight_params(data, weights, output)
    assert limited.scale[0] == 0.25
    assert 250 < limited.scale[1] * 0.5 / 2.0 < 256
