from __future__ import annotations

import pytest

from deploykit.graph.qdq import fold_qdq
from deploykit_quantize.quantizer import quantize_model
from deploykit_testing.quantized import (
    POLICY,
    calibrate,
    describe_nodes,
    fused,
    quantized,
    scale_of,
)


def test_an_activation_behind_a_pool_has_its_own_scale() -> None:
    result = quantized(
        """agraph (float[1, 2, 4, 4] x) => (float[1, 2, 2, 2] y) {
            p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)
            y = Relu (p)
        }"""
    )
    assert scale_of(result, "p_quantized") == scale_of(result, "x_quantized")
    assert scale_of(result, "y_quantized")[1] == -128


def test_concats_in_a_chain_share_one_scale_that_covers_all() -> None:
    model = fused(
        """agraph (float[1, 2, 4, 4] x, float[2, 2, 1, 1] W0, float[2, 2, 1, 1] W1)
                => (float[1, 8, 2, 2] y) <float ten = {10.0}> {
            a = Conv <kernel_shape = [1, 1]> (x, W0)
            b = Conv <kernel_shape = [1, 1]> (x, W1)
            big = Mul (b, ten)
            one = Concat <axis = 1> (a, b)
            pooled = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (one)
            small = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (big)
            two = Concat <axis = 1> (pooled, small)
            y = Concat <axis = 1> (two, small)
        }"""
    )
    table = calibrate(model)
    result = quantize_model(model, POLICY, table)
    names = ["a", "b", "one", "pooled", "big", "small", "two", "y"]
    assert len({scale_of(result, f"{name}_quantized") for name in names}) == 1
    scale, zero = scale_of(result, "a_quantized")
    low = min(table[name].minimum for name in names)
    high = max(table[name].maximum for name in names)
    assert scale == pytest.approx((high - low) / 255, rel=1e-6)
    assert zero == round(-128 - low / scale)


def test_a_fixed_input_of_a_concat_is_requantized() -> None:
    result = quantized(
        """agraph (float[1, 2, 4, 4] x) => (float[1, 4, 4, 4] y) {
            s = Sigmoid (x)
            y = Concat <axis = 1> (x, s)
        }"""
    )
    assert scale_of(result, "s_quantized") == (1 / 256, -128)
    assert scale_of(result, "s_for_y_quantized") == scale_of(result, "x_quantized")
    assert scale_of(result, "y_quantized") == scale_of(result, "x_quantized")
    folded = fold_qdq(result.graph)
    assert [n.op_type for n in folded.model.graph] == ["Sigmoid", "QuantizeLinear", "Concat"]
    assert all(
        folded.runs_in_integers(n) for n in folded.model.graph if n.op_type != "QuantizeLinear"
    )


def test_inputs_that_are_fixed_alike_join_without_requantization() -> None:
    result = quantized(
        """agraph (float[1, 2, 4, 4] x, float[1, 2, 4, 4] W) => (float[1, 4, 4, 4] y) {
            s = Sigmoid (x)
            n = Add (x, W)
            t = Sigmoid (n)
            y = Concat <axis = 1> (s, t)
        }"""
    )
    assert scale_of(result, "y_quantized") == (1 / 256, -128)
    assert not [row for row in describe_nodes(result.graph) if "_for_" in row]


def test_a_fixed_scale_passes_through_ops_that_keep_it() -> None:
    result = quantized(
        """agraph (float[1, 2, 4, 4] x) => (float[1, 32] y) <int64[2] flat = {1, 32}> {
            s = Sigmoid (x)
            y = Reshape (s, flat)
        }"""
    )
    assert scale_of(result, "y_quantized") == (1 / 256, -128)


def test_a_constant_of_a_concat_is_in_its_range_and_scale() -> None:
    result = quantized(
        """agraph (float[1, 1, 2, 2] x) => (float[1, 2, 2, 2] y)
            <float[1, 1, 2, 2] k = {40.0, 0.0, 0.0, -1.0}> {
            y = Concat <axis = 1> (x, k)
        }"""
    )
    scale, _ = scale_of(result, "x_quantized")
    assert scale * 255 > 40
    folded = fold_qdq(result.graph)
    assert folded.params["k"] == folded.params["x"] == folded.params["y"]
