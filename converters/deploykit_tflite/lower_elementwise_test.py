"""Elementwise ops: broadcasting in the file's layout does what numpy's rule does in ONNX's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit_testing.tflite import (
    assert_float_parity,
    assert_int8_parity,
    random_inputs,
    run_onnxruntime,
    stage_of,
    write,
)

X = "float[1,6,5,4] x"


@st.composite
def broadcast_pairs(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    rank = draw(st.integers(1, 5))
    full = [1 if rank == 4 and i == 0 else draw(st.integers(1, 4)) for i in range(rank)]
    other = [d if draw(st.booleans()) else 1 for d in full]
    return full, other[draw(st.integers(0, rank - 1)) :]


@settings(max_examples=60, deadline=None)
@given(broadcast_pairs(), st.sampled_from(["Add", "Mul", "Sub", "Max"]), st.booleans())
def test_broadcasting(shapes: tuple[list[int], list[int]], op: str, constant: bool) -> None:
    full, other = (",".join(map(str, s)) for s in shapes)
    generator = np.random.default_rng(0)
    if constant:
        model = stage_of(
            f"y = {op}(x, z)",
            f"float[{full}] x",
            "y",
            {"z": generator.uniform(-2, 2, shapes[1]).astype(np.float32)},
        )
    else:
        model = stage_of(f"y = {op}(x, z)", f"float[{full}] x, float[{other}] z", "y")
    # XNNPACK has its own limits of rank; the reference kernels tell whether the file is right.
    assert_float_parity(model, kernels=("reference",))


@pytest.mark.parametrize(
    ("other", "ops"),
    [
        ("float[1,6,5,4] z", []),
        ("float[1,6,1,1] z", []),  # squeeze and excitation
        ("float[6,1,1] z", ["RESHAPE"]),
        ("float[5,4] z", ["RESHAPE"]),
        ("float[6,5,4] z", ["RESHAPE", "TRANSPOSE"]),
    ],
)
@pytest.mark.parametrize("op", ["Add", "Mul", "Sub"])
def test_computed_operands_cost_no_more_than_they_must(op: str, other: str, ops: list[str]) -> None:
    model = stage_of(f"y = {op}(x, z)", f"{X}, {other}", "y")
    for written in (assert_float_parity(model), assert_int8_parity(model)):
        assert written.ops == [*ops, op.upper()]
        assert written.is_one_partition


@pytest.mark.parametrize("shape", [(), (1,), (6, 1, 1), (1, 6, 1, 1), (6, 5, 4), (4,)])
@pytest.mark.parametrize("op", ["Add", "Mul", "Sub"])
def test_constants_cost_nothing(op: str, shape: tuple[int, ...]) -> None:
    constant = np.random.default_rng(0).uniform(0.2, 2, shape).astype(np.float32)
    model = stage_of(f"y = {op}(x, c)", X, "y", {"c": constant})
    for written in (assert_float_parity(model), assert_int8_parity(model)):
        assert written.ops == [op.upper()]
        assert written.is_one_partition


def test_constant_on_the_left() -> None:
    constant = np.random.default_rng(0).uniform(0.2, 2, (6, 1, 1)).astype(np.float32)
    model = stage_of("y = Sub(c, x)", X, "y", {"c": constant})
    assert_float_parity(model)
    assert_int8_parity(model)


@pytest.mark.parametrize("op", ["Add", "Mul", "Sub"])
def test_relu6_is_fused(op: str) -> None:
    bounds = {"lo": np.float32(0), "hi": np.float32(6)}
    model = stage_of(f"a = {op}(x, z) y = Clip(a, lo, hi)", f"{X}, {X[:-1]}z", "y", bounds)
    written = assert_float_parity(model, random_inputs(model, low=-5, high=5))
    assert written.ops == [op.upper()]
    assert written.fused == ["RELU6"]
    assert assert_int8_parity(model, random_inputs(model, low=-5, high=5)).ops == [op.upper()]


@pytest.mark.parametrize("op", ["Max", "Min"])
def test_extrema_in_int8_compare_on_one_scale(op: str) -> None:
    model = stage_of(f"y = {op}(x, z)", f"{X}, {X[:-1]}z", "y")
    inputs = random_inputs(model)
    inputs["z"] *= 3
    assert_int8_parity(model, inputs)
    constant = {"c": np.random.default_rng(0).uniform(-1, 1, (6, 1, 1)).astype(np.float32)}
    assert_int8_parity(stage_of(f"y = {op}(x, c)", X, "y", constant))


@pytest.mark.parametrize("exponent", [0.5, -0.5, 3.0, 1.7])
def test_powers(exponent: float) -> None:
    model = stage_of("y = Pow(x, e)", X, "y", {"e": np.float32(exponent)})
    written = assert_float_parity(model, random_inputs(model, low=0.3), tolerance=1e-5)
    names = {0.5: "SQRT", -0.5: "RSQRT"}
    assert written.ops == [names.get(exponent, "POW")]


@pytest.mark.parametrize("op", ["Exp", "Abs", "Neg", "Sqrt"])
def test_float_unaries(op: str) -> None:
    model = stage_of(f"y = {op}(x)", X, "y")
    assert_float_parity(model, random_inputs(model, low=0.1 if op == "Sqrt" else -2))


def test_division() -> None:
    model = stage_of("y = Div(x, z)", f"{X}, {X[:-1]}z", "y")
    written = assert_float_parity(model, random_inputs(model, low=0.5))
    assert written.ops == ["DIV"]


def test_a_float_op_among_integers_is_an_island() -> None:
    """Exp has no int8 kernel: it runs in float between DEQUANTIZE and QUANTIZE."""
    model = stage_of("a = Relu(x) b = Exp(a) y = Mul(b, a)", X, "y")
    written = assert_int8_parity(model)
    assert written.ops == ["QUANTIZE", "DEQUANTIZE", "EXP", "QUANTIZE", "MUL"]


def test_mul_of_large_ratio_says_so_in_its_version() -> None:
    """Version 3 is needed where the product of the input scales exceeds the output's."""
    model = stage_of("a = Mul(x, c) y = Relu(a)", X, "y", {"c": np.float32(5)})
    assert write(model).versions == {"MUL": 1}
    inputs = random_inputs(model)
    assert run_onnxruntime(model, inputs)["y"].max() > 5
    assert assert_int8_parity(model, inputs).versions == {"MUL": 2}
