"""Pooling and reductions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.model import Model
from deploykit_testing.tflite import (
    assert_float_parity,
    assert_int8_parity,
    random_inputs,
    stage_of,
    write,
)


def pool(
    op: str,
    size: tuple[int, int] = (8, 8),
    kernel: int = 3,
    stride: int = 2,
    pads: tuple[int, ...] = (1, 1, 1, 1),
    more: str = "",
    before: str = "",
    channels: int = 3,
) -> Model:
    source = "r" if before else "x"
    return stage_of(
        f"{before} y = {op}<kernel_shape=[{kernel},{kernel}], strides=[{stride},{stride}], "
        f"pads={list(pads)}{more}>({source})",
        f"float[1,{channels},{size[0]},{size[1]}] x",
        "y",
    )


@st.composite
def geometries(draw: st.DrawFn) -> dict:
    kernel = draw(st.integers(2, 4))
    return {
        "kernel": kernel,
        "stride": draw(st.integers(1, 3)),
        "pads": draw(st.tuples(*[st.integers(0, kernel - 1)] * 4)),
        "size": draw(st.tuples(st.integers(kernel, 10), st.integers(kernel, 10))),
        "channels": draw(st.integers(1, 9)),
    }


@settings(max_examples=30, deadline=None)
@given(geometries(), st.booleans())
def test_max_pool(geometry: dict, relu: bool) -> None:
    model = pool("MaxPool", **geometry, before="r = Relu(x)" if relu else "")
    assert_float_parity(model)
    assert_int8_parity(model)


@settings(max_examples=40, deadline=None)
@given(geometries(), st.integers(0, 1))
def test_average_pool(geometry: dict, counts: int) -> None:
    model = pool("AveragePool", **geometry, more=f", count_include_pad={counts}")
    # Of one sign: a mean that cancels to nothing has no digits to compare.
    assert_float_parity(model, random_inputs(model, low=0.5))
    # A mean over few elements at the border is one over the padded window, scaled up, and the
    # half step of its rounding with it: by the whole window in the worst corner.
    steps = 1.0 if counts else 1.0 + 0.5 * geometry["kernel"] ** 2
    assert_int8_parity(model, steps=steps)


def test_max_pool_behind_relu_pads_with_zero_and_stays_delegated() -> None:
    written = assert_float_parity(pool("MaxPool", before="r = Relu(x)"))
    assert written.ops == ["RELU", "PAD", "MAX_POOL_2D"]
    assert written.is_one_partition
    in_int8 = assert_int8_parity(pool("MaxPool", before="r = Relu(x)"))
    assert in_int8.ops == ["QUANTIZE", "PAD", "MAX_POOL_2D"]
    assert in_int8.is_one_partition


def test_max_pool_of_any_sign_pads_with_the_lowest_value() -> None:
    assert assert_float_parity(pool("MaxPool")).ops == ["PADV2", "MAX_POOL_2D"]
    assert assert_int8_parity(pool("MaxPool")).ops == ["PADV2", "MAX_POOL_2D"]


def test_same_padding_is_written_as_such() -> None:
    assert assert_float_parity(pool("MaxPool", stride=1)).ops == ["MAX_POOL_2D"]
    assert assert_float_parity(pool("AveragePool", stride=1)).ops == ["AVERAGE_POOL_2D"]


@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (1, 1, 1, 1)])
def test_int8_average_is_a_convolution_that_delegates_take(pads: tuple[int, ...]) -> None:
    model = pool("AveragePool", pads=pads, more=", count_include_pad=1", channels=7)
    written = assert_int8_parity(model)
    assert written.ops[-1] == "DEPTHWISE_CONV_2D"
    assert written.is_one_partition


@pytest.mark.parametrize("op", ["ReduceMean", "ReduceMax", "ReduceSum"])
@pytest.mark.parametrize("axes", [(2, 3), (1,), (2,), (3,), (1, 2), (1, 2, 3)])
@pytest.mark.parametrize("keeps", [0, 1])
def test_reductions(op: str, axes: tuple[int, ...], keeps: int) -> None:
    model = stage_of(
        f"y = {op}<keepdims={keeps}>(x, a)",
        "float[1,7,5,4] x",
        "y",
        {"a": np.array(axes, np.int64)},
    )
    assert_float_parity(model)
    assert assert_int8_parity(model).is_one_partition


@pytest.mark.parametrize("keeps", [0, 1])
@pytest.mark.parametrize("channels", [1, 3, 16, 37])
def test_global_mean_is_one_operator_whatever_the_channels(keeps: int, channels: int) -> None:
    model = stage_of(
        f"y = ReduceMean<keepdims={keeps}>(x, a)",
        f"float[1,{channels},7,7] x",
        "y",
        {"a": np.array([2, 3], np.int64)},
    )
    for written in (assert_float_parity(model), assert_int8_parity(model)):
        assert written.ops == ["MEAN"]
        assert written.is_one_partition


def mean_of_map(side: int, keeps: int) -> Model:
    return stage_of(
        f"y = ReduceMean<keepdims={keeps}>(x, a)",
        f"float[1,5,{side},{side}] x",
        "y",
        {"a": np.array([2, 3], np.int64)},
    )


@pytest.mark.parametrize("keeps", [0, 1])
@pytest.mark.parametrize("kernels", ["reference", "xnnpack"])
def test_the_mean_of_one_colour_is_that_colour(keeps: int, kernels: str) -> None:
    """Added up one by one, 112 x 112 equal numbers are off by up to 2e-4."""
    colors = np.float32([0.3, 0.7, 1.1, 5.3, -0.9])
    inputs = {"x": np.broadcast_to(colors[None, :, None, None], (1, 5, 112, 112)).copy()}
    written = write(mean_of_map(112, keeps))

    found = written.run(inputs, kernels)["y"].reshape(5)

    np.testing.assert_allclose(found, colors, rtol=4e-6)
    assert written.ops == ["MEAN", "MEAN"]
    assert written.is_one_partition


@pytest.mark.parametrize("keeps", [0, 1])
def test_a_long_mean_is_the_mean_of_means_in_floats_only(keeps: int) -> None:
    assert assert_float_parity(mean_of_map(32, keeps)).ops == ["MEAN", "MEAN"]
    assert assert_float_parity(mean_of_map(31, keeps)).ops == ["MEAN"]
    assert assert_int8_parity(mean_of_map(32, keeps)).ops == ["MEAN"]


def test_reduction_of_other_ranks() -> None:
    for shape in ("3,4", "2,3,4", "2,3,4,5,2"):
        model = stage_of(
            "y = ReduceMean<keepdims=0>(x, a)", f"float[{shape}] x", "y", {"a": np.array([1])}
        )
        assert_float_parity(model, kernels=("reference",))


def test_a_padded_float_mean_is_a_convolution_that_delegates_pad_along() -> None:
    written = assert_float_parity(pool("AveragePool", more=", count_include_pad=1"))
    assert written.ops == ["PAD", "DEPTHWISE_CONV_2D"]
    assert written.is_one_partition
