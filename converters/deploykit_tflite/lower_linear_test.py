"""Linear layers and matrix products."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.model import Model
from deploykit_testing.tflite import (
    assert_float_parity,
    assert_int8_parity,
    stage_of,
)


def linear(columns: int, units: int, before: str = "", inputs: str = "", after: str = "") -> Model:
    generator = np.random.default_rng(units)
    constants = {
        "W": generator.standard_normal((units, columns)).astype(np.float32),
        "B": generator.standard_normal(units).astype(np.float32),
    }
    if before:
        constants["s"] = np.array([1, columns], np.int64)
    source, result = ("f" if before else "x"), ("g" if after else "y")
    return stage_of(
        f"{before} {result} = Gemm<transB=1>({source}, W, B) {after}",
        inputs or f"float[1,{columns}] x",
        "y",
        constants,
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 20))
def test_gemm(columns: int, units: int) -> None:
    model = linear(columns, units)
    assert assert_float_parity(model, tolerance=1e-5).ops == ["FULLY_CONNECTED"]
    assert assert_int8_parity(model).ops == ["FULLY_CONNECTED"]


def test_gemm_versions_and_fused_relu() -> None:
    model = linear(8, 5, after="y = Relu(g)")
    written = assert_float_parity(model)
    assert written.fused == ["RELU"]
    assert written.versions == {"FULLY_CONNECTED": 1}
    assert assert_int8_parity(model).versions == {"FULLY_CONNECTED": 4}


def test_flattened_feature_map_moves_the_weights_not_the_data() -> None:
    model = linear(6 * 5 * 4, 7, "f = Reshape(x, s)", "float[1,6,5,4] x")
    for written in (assert_float_parity(model, tolerance=1e-5), assert_int8_parity(model)):
        assert written.ops == ["RESHAPE", "FULLY_CONNECTED"]
        # The flattened tensor holds other numbers at each place than the value of that name.
        assert "f" not in written.artifact.value_names
        assert "f_dequantized" not in written.artifact.value_names


def test_flattened_map_with_another_reader_is_transposed_for_it() -> None:
    model = linear(6 * 5 * 4, 120, "f = Reshape(x, s)", "float[1,6,5,4] x", after="y = Add(g, f)")
    assert assert_float_parity(model, tolerance=1e-5).ops == [
        "TRANSPOSE",
        "RESHAPE",
        "FULLY_CONNECTED",
        "ADD",
    ]


@pytest.mark.parametrize(
    ("inputs", "ops"),
    [
        ("float[1,6,8] x, float[1,8,4] z", ["BATCH_MATMUL"]),
        ("float[6,8] x, float[8,4] z", ["BATCH_MATMUL"]),
        (
            "float[1,2,6,8] x, float[1,2,8,4] z",
            ["TRANSPOSE", "TRANSPOSE", "BATCH_MATMUL", "TRANSPOSE"],
        ),
    ],
)
def test_product_of_computed_matrices(inputs: str, ops: list[str]) -> None:
    model = stage_of("y = MatMul(x, z)", inputs, "y")
    assert assert_float_parity(model).ops == ops
    assert assert_int8_parity(model).ops == ops


@pytest.mark.parametrize("shape", ["6,8", "1,6,8", "1,3,6,8"])
@pytest.mark.parametrize("then", ["", "y = Relu(m)"])
def test_product_by_a_constant_matrix(shape: str, then: str) -> None:
    weights = np.random.default_rng(0).standard_normal((8, 5)).astype(np.float32)
    body = f"{'m' if then else 'y'} = MatMul(x, W) {then}"
    model = stage_of(body, f"float[{shape}] x", "y", {"W": weights})
    assert "FULLY_CONNECTED" in assert_float_parity(model).ops
    assert_int8_parity(model)
