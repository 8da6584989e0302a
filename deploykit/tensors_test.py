from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deploykit.errors import ContractError
from deploykit.tensors import QuantParams, TensorSpec

SCALES = st.floats(2.0**-20, 2.0**10, width=32)


@given(
    hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(-1e3, 1e3, width=32)),
    SCALES,
    st.integers(-128, 127),
)
def test_quantize_rounds_to_nearest_and_saturates(
    real: np.ndarray, scale: float, zero: int
) -> None:
    params = QuantParams((scale,), (zero,))
    integers = params.quantize(real)
    steps = real.astype(np.float32) / np.float32(scale)
    inside = (steps + zero > -128) & (steps + zero < 127)
    error = np.abs(params.dequantize(integers) - real)
    assert np.all(error[inside] <= 0.5 * scale * (1 + 1e-5) + np.abs(real[inside]) * 1e-6)
    assert np.all(integers[steps + zero >= 127] == 127)
    assert np.all(integers[steps + zero <= -128] == -128)


def test_quantize_ties_go_to_even() -> None:
    params = QuantParams((1.0,), (0,))
    assert params.quantize(np.float32([0.5, 1.5, 2.5, -0.5, -1.5])).tolist() == [0, 2, 2, 0, -2]


def test_int32_keeps_every_bit() -> None:
    params = QuantParams((1.0,), (0,), "int32")
    big = np.array([2**31 - 1, -(2**31)], np.int32)
    assert params.dequantize(big).tolist() == [2.0**31, -(2.0**31)]
    assert params.quantize(np.float32([3e9, -3e9])).tolist() == [2**31 - 1, -(2**31)]


def test_per_channel_scales_follow_their_axis() -> None:
    params = QuantParams((1.0, 2.0), (0, 0), axis=1)
    assert params.dequantize(np.ones((1, 2, 2), np.int8)).tolist() == [[[1, 1], [2, 2]]]


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"scale": (1.0,), "zero_point": (0,), "dtype": "float16"}, "dtype"),
        ({"scale": (1.0, 2.0), "zero_point": (0,)}, "2 scales"),
        ({"scale": (1.0, 2.0), "zero_point": (0, 0)}, "without an axis"),
        ({"scale": (0.0,), "zero_point": (0,)}, "positive"),
        ({"scale": (float("nan"),), "zero_point": (0,)}, "positive"),
        ({"scale": (1.0,), "zero_point": (200,)}, "zero point"),
    ],
)
def test_params_that_contradict_are_refused(kwargs: dict, words: str) -> None:
    with pytest.raises(ContractError, match=words):
        QuantParams(**kwargs)


def test_encode_moves_channels_last_and_quantizes() -> None:
    spec = TensorSpec("x", (1, 2, 3, 2), "int8", "NHWC", QuantParams((0.5,), (1,)))
    value = np.arange(12, dtype=np.float32).reshape(1, 2, 2, 3)
    raw = spec.encode(value)
    assert raw.dtype == np.int8
    assert raw.shape == (1, 2, 3, 2)
    assert raw[0, 0, 0].tolist() == [1, 13]
    assert np.array_equal(spec.decode(raw), value)


def test_encode_refuses_another_shape() -> None:
    with pytest.raises(ContractError, match="was given shape"):
        TensorSpec("x", (1, 8, 8, 3), layout="NHWC").encode(np.zeros((1, 3, 8, 9), np.float32))


def test_specs_survive_the_manifest() -> None:
    spec = TensorSpec("x", (1, 2), "uint8", "plain", QuantParams((0.1, 0.2), (3, 4), "uint8", 1))
    assert TensorSpec.from_dict(spec.to_dict()) == spec


def test_channels_in_another_order_come_back() -> None:
    spec = TensorSpec("x", (1, 2, 2, 3), layout="NHWC", channel_order=(2, 0, 1))
    value = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)
    raw = spec.encode(value)
    np.testing.assert_array_equal(raw[0, :, :, 0], value[0, 2])
    np.testing.assert_array_equal(spec.decode(raw), value)
    assert TensorSpec.from_dict(spec.to_dict()) == spec
    assert "channel_order" not in TensorSpec("x", (1,)).to_dict()


def test_one_sample_without_a_batch_axis() -> None:
    spec = TensorSpec("x", (3, 4, 5), layout="CHW", tensor="in0")
    value = np.arange(60, dtype=np.float32).reshape(1, 3, 4, 5)
    raw = spec.encode(value)
    assert raw.shape == (3, 4, 5)
    assert np.array_equal(spec.decode(raw), value)
    assert (spec.batch, spec.runtime_name) == (1, "in0")
    assert TensorSpec.from_dict(spec.to_dict()) == spec
    with pytest.raises(ContractError, match="was given shape"):
        spec.encode(np.zeros((2, 3, 4, 5), np.float32))


def test_axes_of_length_one_that_a_runtime_left_out_come_back() -> None:
    spec = TensorSpec("x", (3, 1, 1), layout="CHW")
    assert spec.decode(np.zeros(3, np.float32)).shape == (1, 3, 1, 1)
    assert spec.decode(np.zeros(4, np.float32)).shape == (1, 4)


def test_the_batch_and_the_name_are_the_specs_own_by_default() -> None:
    spec = TensorSpec("x", (8, 3, 4, 5), layout="NCHW")
    assert (spec.batch, spec.runtime_name) == (8, "x")
    assert TensorSpec("x", ()).batch == 1
    assert "tensor" not in spec.to_dict()
