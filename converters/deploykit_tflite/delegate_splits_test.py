"""What the tables say XNNPACK leaves is what LiteRT says it leaves."""

from __future__ import annotations

import re

import numpy as np
import pytest

from deploykit.model import Precision
from deploykit_testing.tflite import quantized, random_inputs, stage_of, write
from deploykit_tflite.delegate_splits import (
    LEFT_ALWAYS,
    LEFT_IN_INTEGERS,
    find_delegate_splits,
)

#: Operator → the nodes between the convolutions, from a to b.
CASES = {
    "RELU": "n = Relu(a) b = Neg(n)",
    "PAD": 'b = Pad<mode = "constant">(a, pads, zero)',
    "PADV2": 'b = Pad<mode = "constant">(a, pads, one)',
    "MIRROR_PAD": 'b = Pad<mode = "reflect">(a, pads)',
    "GATHER": "b = Gather<axis = 1>(a, indices)",
    "STRIDED_SLICE": "b = Slice(a, starts, ends, axes, steps)",
    "RESIZE_NEAREST_NEIGHBOR": (
        'b = Resize<mode = "nearest", coordinate_transformation_mode = "asymmetric", '
        'nearest_mode = "floor">(a, , , sizes)'
    ),
    "RESIZE_BILINEAR": (
        'b = Resize<mode = "linear", coordinate_transformation_mode = "half_pixel">(a, , , sizes)'
    ),
    "POW": "p = Pow(a, three) b = Relu(p)",
    "SOFTMAX": "b = Softmax<axis = 1>(a)",
    "PRELU": "b = PRelu(a, slope)",
    "MAXIMUM": "b = Max(a, half)",
    "MINIMUM": "b = Min(a, half)",
    "RELU_N1_TO_1": "n = Neg(a) b = Clip(n, minus, one)",
    "ADD": "b = Add(a, a)",
    "MEAN": "m = ReduceMean<keepdims = 1>(a, axes23) b = Mul(a, m)",
    "LOGISTIC": "b = Sigmoid(a)",
    "HARD_SWISH": "b = HardSwish(a)",
    "CONCATENATION": "b = Concat<axis = 1>(a, a)",
    "MAX_POOL_2D": "b = MaxPool<kernel_shape = [2, 2], strides = [2, 2], pads = [0, 0, 0, 0]>(a)",
}

CONSTANTS = {
    "w": np.random.default_rng(0).normal(0, 0.4, (8, 8, 1, 1)).astype(np.float32),
    "w16": np.random.default_rng(1).normal(0, 0.4, (8, 16, 1, 1)).astype(np.float32),
    "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "zero": np.float32(0),
    "one": np.float32(1),
    "minus": np.float32(-1),
    "half": np.float32(0.5),
    "three": np.float32(3),
    "indices": np.array([7, 6, 5, 4, 3, 2, 1, 0]),
    "starts": np.array([0]),
    "ends": np.array([8]),
    "axes": np.array([3]),
    "steps": np.array([2]),
    "sizes": np.array([1, 8, 16, 16]),
    "slope": np.full((8, 1, 1), 0.2, np.float32),
    "axes23": np.array([2, 3]),
}

_CONV = (
    "<kernel_shape = [1, 1], pads = [0, 0, 0, 0], strides = [1, 1], dilations = [1, 1], group = 1>"
)


def _stage(name: str):
    body = CASES[name]
    last = "w16" if name == "CONCATENATION" else "w"
    text = f"a = Conv{_CONV}(x, w) {body} y = Conv{_CONV}(b, {last})"
    words = set(re.findall(r"\w+", text))
    used = {name: array for name, array in CONSTANTS.items() if name in words}
    return stage_of(text, "float[1,8,8,8] x", "y", used)


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8], ids=lambda p: p.value)
@pytest.mark.parametrize("name", CASES)
def test_the_table_agrees_with_the_runtime(name: str, precision: Precision) -> None:
    stage = _stage(name)
    found = find_delegate_splits(stage, precision)
    inputs = random_inputs(stage)
    written = write(quantized(stage, inputs) if precision is Precision.INT8 else stage, precision)
    assert {s.op for s in found} <= set(written.ops)
    assert written.is_one_partition == (not found), (written.ops, written.delegation)


def test_each_op_of_the_tables_is_met_by_a_case_or_has_no_single_form_here() -> None:
    # These two need other inputs than a feature map, and have tests of their own.
    assert set(CASES) >= (LEFT_ALWAYS | LEFT_IN_INTEGERS) - {"BATCH_MATMUL", "BROADCAST_TO"}


def test_the_value_is_the_one_that_the_stage_knows() -> None:
    (split,) = find_delegate_splits(_stage("MIRROR_PAD"), Precision.FP32)
    assert (split.value, split.op, split.library) == ("b", "MIRROR_PAD", "XNNPACK")


def test_a_product_of_two_computed_matrices() -> None:
    stage = stage_of("s = Sigmoid(a) y = MatMul(s, b)", "float[1,4,6] a, float[1,6,5] b", "y", {})
    assert find_delegate_splits(stage, Precision.FP32) == ()
    assert write(stage).is_one_partition
    found = find_delegate_splits(stage, Precision.INT8)
    assert [s.op for s in found] == ["BATCH_MATMUL"]
    assert not write(quantized(stage, random_inputs(stage)), Precision.INT8).is_one_partition


def test_a_broadcast() -> None:
    stage = stage_of(
        "s = Sigmoid(x) y = Expand(s, shape)", "float[1,8,1,1] x", "y",
        {"shape": np.array([1, 8, 4, 4])},
    )  # fmt: skip
    for precision in (Precision.FP32, Precision.INT8):
        assert [s.op for s in find_delegate_splits(stage, precision)] == ["BROADCAST_TO"]
    assert not write(stage).is_one_partition
