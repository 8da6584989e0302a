from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from deploykit.errors import ContractError
from deploykit.graph.qdq import fold_qdq
from deploykit.model import Stage
from deploykit_quantize.policy import Recipe
from deploykit_quantize.weight_only import quantize_weights
from deploykit_testing.quantized import (
    NETWORK,
    describe_nodes,
    fused,
    run_values,
    samples_of,
    simulate,
    snr_db,
)

DYNAMIC = Recipe.parse("dynamic_wi8_afp32")


def test_weights_alone_become_integers_and_the_signal_is_kept() -> None:
    model = fused(NETWORK)
    result = quantize_weights(model, DYNAMIC, smallest_weights=32)
    assert result.stage is Stage.QUANTIZED
    onnx.checker.check_model(ir.to_proto(result.graph), full_check=True)
    stored = {n: v for n, v in result.graph.graph.initializers.items() if n.endswith("_quantized")}
    assert set(stored) == {f"W{i}_quantized" for i in range(7)}
    assert {v.dtype for v in stored.values()} == {ir.DataType.INT8}
    assert not [row for row in describe_nodes(result.graph) if row.startswith("Q(")]
    feed = {"x": samples_of(model, 1)}
    assert snr_db(run_values(model.graph, feed)["y"], run_values(result.graph, feed)["y"]) > 35


def test_small_weights_stay_float() -> None:
    result = quantize_weights(fused(NETWORK), DYNAMIC, smallest_weights=80)
    assert set(result.graph.graph.initializers) >= {"W0_quantized", "W1", "W2", "W6_quantized"}


def test_folding_leaves_float_nodes_with_integer_weights() -> None:
    model = fused(NETWORK)
    result = quantize_weights(model, DYNAMIC, smallest_weights=32)
    folded = fold_qdq(result.graph)
    assert [n.op_type for n in folded.model.graph] == [n.op_type for n in model.graph.graph]
    assert not any(folded.runs_in_integers(n) for n in folded.model.graph)
    assert set(folded.params) == set(folded.integers) == {f"W{i}" for i in range(7)}
    feed = {"x": samples_of(model, 1)}
    np.testing.assert_array_equal(simulate(folded, feed)["y"], run_values(result.graph, feed)["y"])


def test_refusals() -> None:
    model = fused(NETWORK)
    with pytest.raises(ContractError, match="weights alone"):
        quantize_weights(model, Recipe.parse("static_wi8_ai8"))
    with pytest.raises(ContractError, match="quantized already"):
        quantize_weights(quantize_weights(model, DYNAMIC, smallest_weights=1), DYNAMIC)
