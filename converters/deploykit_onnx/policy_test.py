"""The policy: which precision is quantized how, and what the options change."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.graph.ops import CANONICAL_OPS
from deploykit.graph.reading import constant_array
from deploykit.model import Model, Precision
from deploykit_onnx.options import WriteOptions
from deploykit_onnx.policy import ANY_SCALE_OPS, SAME_SCALE_OPS, policy_of
from deploykit_quantize.quantizer import quantize_model
from deploykit_testing.quantized import NETWORK, calibrate, fused


def quantized(**options: str) -> Model:
    policy = policy_of(Precision.INT8, WriteOptions.parse(options))
    assert policy is not None
    model = fused(NETWORK)
    return quantize_model(model, policy, calibrate(model))


def weights_of(model: Model) -> list[np.ndarray]:
    """The int8 constants, as whole numbers."""
    found = [constant_array(v) for v in model.graph.graph.initializers.values()]
    return [a.astype(int) for a in found if a is not None and a.dtype == np.int8 and a.ndim > 1]


def test_floats_are_not_quantized() -> None:
    for precision in (Precision.FP32, Precision.FP16):
        assert policy_of(precision, WriteOptions.parse({})) is None


def test_weights_alone() -> None:
    policy = policy_of(Precision.W8, WriteOptions.parse({"per_channel": "no"}))
    assert policy is not None
    assert policy.recipe.activations is None
    assert not policy.recipe.weights.per_channel


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_activations(dtype: str) -> None:
    policy = policy_of(Precision.INT8, WriteOptions.parse({"activations": dtype}))
    assert policy is not None
    assert policy.recipe.activations is not None
    assert policy.recipe.activations.dtype == dtype
    assert policy.recipe.weights.dtype == "int8"


def test_its_ops_are_canonical_or_written_by_its_rewrites() -> None:
    known = {op.op_type for op in CANONICAL_OPS} | {"GlobalAveragePool"}
    assert known >= SAME_SCALE_OPS | ANY_SCALE_OPS
    assert not SAME_SCALE_OPS & ANY_SCALE_OPS


def test_reduced_range_keeps_two_products_with_uint8_within_16_bits() -> None:
    whole, reduced = quantized(activations="uint8"), quantized(reduce_range="yes")
    assert max(int(abs(w).max()) for w in weights_of(whole)) == 127
    largest = [int(abs(w).max()) for w in weights_of(reduced)]
    assert largest
    assert max(largest) == 63
    assert 2 * 255 * 63 < 2**15
