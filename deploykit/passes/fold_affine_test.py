"""Constant Mul and Add behind a linear op."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.passes.fold_affine import FoldAffine, per_channel
from deploykit_testing.graphs import check


def _conv(body: str, extra: str = "", shape: str = "1,4,5,5") -> str:
    return f"g (float[1,2,5,5] x, float[4,2,1,1] W{extra}) => (float[{shape}] y) {{ {body} }}"


@settings(max_examples=20, deadline=None)
@given(
    op=st.sampled_from(["Mul", "Add"]),
    shape=st.sampled_from(["1", "4,1,1", "1,4,1,1", "1,1,1"]),
    bias=st.booleans(),
    swapped=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_folds_one_number_a_channel(
    op: str, shape: str, bias: bool, swapped: bool, seed: int
) -> None:
    operands = "C, c" if swapped else "c, C"
    body = f"c = Conv ({'x, W, B' if bias else 'x, W'}) y = {op} ({operands})"
    extra = f", float[{shape}] C" + (", float[4] B" if bias else "")
    assert check(FoldAffine(), _conv(body, extra), ["Conv"], seed=seed) == []


def test_matmul_and_add_become_one_gemm() -> None:
    text = """g (float[2,3] x, float[3,5] W, float[5] B) => (float[2,5] y) {
        m = MatMul (x, W) y = Add (m, B) }"""
    assert check(FoldAffine(), text, ["Gemm"]) == []


def test_grouped_transposed_convolution() -> None:
    text = """g (float[1,4,3,3] x, float[4,3,2,2] W, float[6,1,1] C, float[6,1,1] D)
        => (float[1,6,6,6] y) {
        c = ConvTranspose <group = 2, strides = [2, 2]> (x, W) m = Mul (c, C) y = Add (m, D) }"""
    assert check(FoldAffine(), text, ["ConvTranspose"]) == []


@pytest.mark.parametrize(
    ("body", "extra", "left", "reason"),
    [
        (
            "c = Conv (x, W) y = Mul (c, C)",
            ", float[5,5] C",
            ["Conv", "Mul"],
            "a constant of shape [5, 5] is not one a channel",
        ),
        (
            "c = Conv (x, W) m = Mul (c, C) y = Add (m, c)",
            ", float[4,1,1] C",
            ["Conv", "Mul", "Add"],
            "a value in between has 2 readers",
        ),
    ],
)
def test_reasons(body: str, extra: str, left: list[str], reason: str) -> None:
    assert check(FoldAffine(), _conv(body, extra), left) == [reason]


def test_a_constant_that_broadcasts_the_output_stays() -> None:
    text = _conv("c = Conv (x, W) y = Add (c, C)", ", float[3,4,1,1] C", "3,4,5,5")
    assert check(FoldAffine(), text, ["Conv", "Add"]) == [
        "a constant of shape [3, 4, 1, 1] is not one a channel"
    ]


def test_per_channel_reads_axis_1_only() -> None:
    shape = (2, 3, 4, 4)
    np.testing.assert_array_equal(per_channel(np.array(2.0), shape, shape), [2, 2, 2])
    assert per_channel(np.ones((4,)), shape, shape) is None
    assert per_channel(np.ones((2, 1, 1, 1)), shape, shape) is None
    assert per_channel(np.ones((5,)), (5,), (5,)) is None
