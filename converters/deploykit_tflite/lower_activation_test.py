"""Activations: values, fixed int8 outputs, and the ops that they cost."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit_testing.tflite import (
    assert_float_parity,
    assert_int8_parity,
    random_inputs,
    stage_of,
    write,
)

X = "float[1,6,5,4] x"
WIDE = {"low": -9.0, "high": 9.0}


@pytest.mark.parametrize(
    ("op", "ops"),
    [
        ("Relu(x)", ["RELU"]),
        ("Sigmoid(x)", ["LOGISTIC"]),
        ("Tanh(x)", ["TANH"]),
        ("HardSwish(x)", ["HARD_SWISH"]),
        ("deploykit.Silu(x)", ["LOGISTIC", "MUL"]),
        ("HardSigmoid<alpha=0.16666667,beta=0.5>(x)", ["ADD", "MUL"]),
        ("HardSigmoid<alpha=0.2,beta=0.5>(x)", ["MUL", "ADD", "MUL"]),
        ("LeakyRelu<alpha=0.1>(x)", ["LEAKY_RELU"]),
        ("Elu<alpha=1.0>(x)", ["MINIMUM", "EXP", "SUB", "RELU", "ADD"]),
        ("Elu<alpha=0.5>(x)", ["MINIMUM", "EXP", "SUB", "MUL", "RELU", "ADD"]),
        ('Gelu<approximate="none">(x)', ["GELU"]),
        ('Gelu<approximate="tanh">(x)', ["GELU"]),
    ],
)
def test_float(op: str, ops: list[str]) -> None:
    model = stage_of(f"y = {op}", X, "y")
    written = assert_float_parity(model, random_inputs(model, **WIDE), tolerance=1e-5)
    assert written.ops == ops
    assert written.is_one_partition


@pytest.mark.parametrize(
    ("op", "ops"),
    [
        ("Relu(x)", ["QUANTIZE"]),
        ("Sigmoid(x)", ["LOGISTIC"]),
        ("Tanh(x)", ["TANH"]),
        ("HardSwish(x)", ["MUL", "ADD", "MUL"]),
        ("deploykit.Silu(x)", ["LOGISTIC", "MUL"]),
        ("HardSigmoid<alpha=0.16666667,beta=0.5>(x)", ["MUL", "ADD"]),
        ("LeakyRelu<alpha=0.1>(x)", ["LEAKY_RELU"]),
    ],
)
def test_int8_stays_in_one_partition(op: str, ops: list[str]) -> None:
    model = stage_of(f"y = {op}", X, "y")
    # Each of the three ops of a written-out h-swish rounds by itself.
    steps = 2.0 if "HardSwish" in op else 1.0
    written = assert_int8_parity(model, random_inputs(model, **WIDE), steps=steps)
    assert written.ops == ops
    assert written.is_one_partition
    assert all(t.type in (2, 9) for t in written.tensors.values())  # int32, int8


@pytest.mark.parametrize(
    ("op", "scale", "zero"),
    [
        ("Sigmoid(x)", 1 / 256, -128),
        ("Tanh(x)", 1 / 128, 0),
        ("Softmax<axis=1>(x)", 1 / 256, -128),
    ],
)
def test_int8_outputs_that_the_specification_fixes(op: str, scale: float, zero: int) -> None:
    written = assert_int8_parity(stage_of(f"y = {op}", X, "y"))
    params = written.artifact.outputs[0].quantization
    assert params is not None
    assert params.scale == (scale,)
    assert params.zero_point == (zero,)


@pytest.mark.parametrize(
    ("low", "high", "ops"),
    [
        (0.0, 6.0, ["RELU6"]),
        (-1.0, 1.0, ["RELU_N1_TO_1"]),
        (0.0, np.float32(3.4e38), ["RELU"]),
        (-0.5, 2.5, ["MAXIMUM", "MINIMUM"]),
        (np.float32(-3.4e38), 2.5, ["MINIMUM"]),
        (-0.5, np.float32(3.4e38), ["MAXIMUM"]),
    ],
)
def test_clip(low: float, high: float, ops: list[str]) -> None:
    bounds = {"lo": np.float32(low), "hi": np.float32(high)}
    model = stage_of("y = Clip(x, lo, hi)", X, "y", bounds)
    inputs = random_inputs(model, **WIDE)
    written = assert_float_parity(model, inputs)
    assert written.ops == ops
    assert_int8_parity(model, inputs)


def test_clip_without_bounds_is_no_operator_inside_of_a_graph() -> None:
    model = stage_of("a = Clip(x) b = Sigmoid(a) y = Tanh(b)", X, "y")
    assert assert_float_parity(model).ops == ["RESHAPE", "LOGISTIC", "TANH"]
    model = stage_of("s = Sigmoid(x) a = Clip(s) y = Tanh(a)", X, "y")
    assert assert_float_parity(model).ops == ["LOGISTIC", "TANH"]


def test_prelu_slope_stands_on_the_channels() -> None:
    slope = np.random.default_rng(0).uniform(0.05, 0.4, (6, 1, 1)).astype(np.float32)
    model = stage_of("y = PRelu(x, s)", X, "y", {"s": slope})
    written = assert_float_parity(model)
    assert written.ops == ["PRELU"]
    assert list(written.tensors["s"].shape) == [1, 1, 6]
    assert_int8_parity(model)


@pytest.mark.parametrize(
    ("axis", "ops"),
    [(1, ["SOFTMAX"]), (2, ["TRANSPOSE", "SOFTMAX", "TRANSPOSE"])],
)
def test_softmax_transposes_only_for_axes_that_are_not_last(axis: int, ops: list[str]) -> None:
    model = stage_of(f"y = Softmax<axis={axis}>(x)", X, "y")
    assert assert_float_parity(model).ops == ops
    assert assert_int8_parity(model).ops == ops


def test_hard_sigmoid_behind_a_convolution_is_part_of_it() -> None:
    generator = np.random.default_rng(0)
    model = stage_of(
        "c = Conv<kernel_shape=[1,1], strides=[1,1], pads=[0,0,0,0], dilations=[1,1], group=1>"
        "(x, W, B) y = HardSigmoid<alpha=0.16666667, beta=0.5>(c)",
        X,
        "y",
        {
            "W": generator.standard_normal((4, 6, 1, 1)).astype(np.float32),
            "B": generator.standard_normal(4).astype(np.float32),
        },
    )
    written = assert_float_parity(model)
    assert written.ops == ["CONV_2D", "MUL"]
    assert written.fused == ["RELU6", ""]
    assert "c" not in written.artifact.value_names  # the file does not hold that value
    in_int8 = assert_int8_parity(model)
    assert in_int8.ops == ["CONV_2D"]
    assert in_int8.fused == [""]


def test_an_activation_that_is_an_output_too_is_not_fused_away() -> None:
    model = stage_of("a = Add(x, x) y = Relu(a)", X, "a, y")
    written = write(model)
    assert written.ops == ["ADD", "RELU"]
    assert_float_parity(model)
    assert_int8_parity(model)
