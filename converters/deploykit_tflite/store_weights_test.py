"""Weights by precision."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.errors import UnsupportedOpsError
from deploykit.model import Model, Precision
from deploykit_testing.tflite import stage_of, write
from deploykit_tflite.store_weights import symmetric_params


def conv(out: int, group: int = 1, factor: float = 1.0) -> Model:
    weights = np.random.default_rng(0).standard_normal((out, 32 // group, 3, 3)) * factor
    return stage_of(
        f"y = Conv<kernel_shape=[3,3], strides=[1,1], pads=[1,1,1,1], dilations=[1,1], "
        f"group={group}>(x, W)",
        "float[1,32,6,6] x",
        "y",
        {"W": weights.astype(np.float32)},
    )


def test_fp16_stores_halves_and_dequantizes_them() -> None:
    written = write(conv(8), Precision.FP16)
    assert written.ops == ["DEQUANTIZE", "CONV_2D"]
    assert written.tensors["W/float16"].type == 1
    assert written.versions == {"DEQUANTIZE": 3, "CONV_2D": 1}


def test_fp16_refuses_weights_that_overflow() -> None:
    with pytest.raises(UnsupportedOpsError, match="float16"):
        write(conv(8, factor=1e5), Precision.FP16)


def test_w8_quantizes_convolutions_per_channel_and_leaves_depthwise_alone() -> None:
    written = write(conv(8), Precision.W8)
    assert written.ops == ["CONV_2D"]
    weights = written.tensors["W"]
    assert weights.type == 9
    assert len(weights.quantization.scale) == 8
    assert written.versions == {"CONV_2D": 5}
    depthwise = write(conv(128, group=32), Precision.W8)
    assert depthwise.tensors["W"].type == 0


def test_w8_leaves_small_weights_alone() -> None:
    assert write(conv(2), Precision.W8).tensors["W"].type == 0


def test_w8_linear_layers_have_one_scale_for_old_runtimes() -> None:
    weights = np.random.default_rng(0).standard_normal((40, 40)).astype(np.float32)
    model = stage_of("y = Gemm<transB=1>(x, W)", "float[1,40] x", "y", {"W": weights})
    written = write(model, Precision.W8)
    assert written.versions == {"FULLY_CONNECTED": 3}
    assert len(written.tensors["W"].quantization.scale) == 1


def test_symmetric_params_survive_a_channel_of_zeros() -> None:
    reals = np.array([[0, 0], [1, -2]], np.float32)
    params = symmetric_params(reals, 0)
    assert params.scale == (1.0, pytest.approx(2 / 127))
    assert params.quantize(reals).tolist() == [[0, 0], [64, -127]]
