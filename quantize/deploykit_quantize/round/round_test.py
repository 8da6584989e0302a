from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.tensors import Array
from deploykit_quantize.arithmetic import weight_params
from deploykit_quantize.layer_inputs import collect_moments, stream_values
from deploykit_quantize.policy import TensorRule
from deploykit_quantize.quantizer import Placement, place_integers, prepare_model
from deploykit_quantize.round.keep_sums import KeepSums
from deploykit_quantize.round.nearest import Nearest
from deploykit_quantize.round.optimal_brain import round_rows, row_errors
from deploykit_quantize.round.second_order import SecondOrder
from deploykit_quantize.weighted_layer import WeightedLayer, weighted_layer
from deploykit_testing.quantized import (
    NETWORK,
    POLICY,
    as_data,
    calibrate,
    fused,
    samples_of,
)

RULE = TensorRule("int8", symmetric=True, per_channel=True)


def layer_of(op: str, weights: Array, **attributes: object) -> WeightedLayer:
    x = ir.Value(name="x")
    w = ir.Value(name="w", const_value=ir.Tensor(weights))
    made = [ir.AttrInt64(n, v) if isinstance(v, int) else ir.AttrInt64s(n, v)  # type: ignore[arg-type]
            for n, v in attributes.items()]  # fmt: skip
    node = ir.Node("", op, [x, w], made, outputs=[ir.Value(name="y")])
    found = weighted_layer(node)
    assert found is not None
    return found


@settings(max_examples=40, deadline=None)
@given(
    groups=st.integers(1, 3),
    rows=st.integers(1, 4),
    n=st.integers(1, 12),
    seed=st.integers(0, 10**6),
)
def test_no_row_is_worse_than_the_nearest_integers_in_its_own_objective(
    groups: int, rows: int, n: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    steps = rng.uniform(-127, 127, (groups, rows, n))
    x = rng.standard_normal((groups, n, 2 * n)) + rng.uniform(-3, 3)
    hessian = x @ x.transpose(0, 2, 1) / (2 * n) + 0.01 * np.eye(n)
    found = round_rows(steps, hessian, 127)
    assert np.array_equal(found, np.rint(found))
    assert np.abs(found).max() <= 127
    nearest = np.rint(steps)
    worst = row_errors(nearest - steps, hessian)
    assert (row_errors(found - steps, hessian) <= worst + 1e-9).all()


def test_a_diagonal_objective_is_rounding_to_nearest() -> None:
    steps = np.random.default_rng(0).uniform(-127, 127, (2, 3, 7))
    hessian = np.eye(7)[None] * np.float64([[[2.0]], [[3.0]]])
    assert np.array_equal(round_rows(steps, hessian, 127), np.rint(steps))


def test_sums_of_depthwise_kernels_are_kept_within_a_step() -> None:
    weights = np.random.default_rng(1).standard_normal((32, 1, 3, 3)).astype(np.float32)
    layer = layer_of("Conv", weights, group=32)
    params = weight_params(weights, 0, RULE)
    scale = np.float64(params.scale)
    kept = KeepSums().round(layer, params, 127, None)
    nearest = Nearest().round(layer, params, 127, None)
    sums = weights.reshape(32, -1).sum(1) / scale

    def off(integers: Array) -> Array:
        return np.abs(integers.reshape(32, -1).sum(1) - sums)

    assert kept.changed
    assert off(kept.integers).max() <= 1.0
    assert off(kept.integers).mean() < 0.5 * off(nearest.integers).mean()
    assert np.abs(kept.integers.astype(int) - nearest.integers).max() <= 2


def test_a_pointwise_layer_has_no_sum_to_keep() -> None:
    weights = np.random.default_rng(1).standard_normal((8, 4, 1, 1)).astype(np.float32)
    layer, params = layer_of("Conv", weights), weight_params(weights, 0, RULE)
    rounded = KeepSums().round(layer, params, 127, None)
    assert (rounded.changed, rounded.reason) == (False, "nearest: its kernel has one tap")
    assert np.array_equal(rounded.integers, Nearest().round(layer, params, 127, None).integers)


def test_what_is_not_known_or_too_large_is_rounded_to_nearest_and_says_so() -> None:
    weights = np.random.default_rng(1).standard_normal((8, 40)).astype(np.float32)
    layer, params = layer_of("Gemm", weights, transB=1), weight_params(weights, 0, RULE)
    unknown = SecondOrder().round(layer, params, 127, None)
    assert unknown.reason == "nearest: nothing is known of what it reads"
    large = SecondOrder(most_weights=39).round(
        layer, params, 127, np.eye(40, dtype=np.float32)[None]
    )
    assert large.reason == "nearest: 40 weights a channel, more than 39"


@pytest.mark.parametrize(
    ("op", "shape", "given", "attributes"),
    [
        ("Conv", (6, 3, 3, 3), (1, 3, 9, 9), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
        ("Conv", (6, 1, 3, 3), (1, 6, 7, 7), {"group": 6, "dilations": [2, 2]}),
        ("Conv", (6, 2, 1, 1), (1, 4, 5, 5), {"group": 2}),
        ("Gemm", (5, 7), (1, 7), {"transB": 1}),
        ("Gemm", (7, 5), (1, 7), {}),
        ("MatMul", (7, 5), (1, 3, 7), {}),
    ],
)
def test_rows_times_windows_are_what_the_layer_computes(
    op: str, shape: tuple[int, ...], given: tuple[int, ...], attributes: dict[str, object]
) -> None:
    import onnxruntime
    from onnx import TensorProto, helper

    rng = np.random.default_rng(2)
    weights = rng.standard_normal(shape).astype(np.float32)
    x = rng.standard_normal(given).astype(np.float32)
    layer = layer_of(op, weights, **attributes)
    made = layer.rows(weights) @ layer.windows(x)
    node = helper.make_node(op, ["x", "w"], ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, given)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [helper.make_tensor("w", TensorProto.FLOAT, shape, weights.ravel())],
    )
    model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 20)])
    (y,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    expected = y[0].reshape(y.shape[1], -1) if y.ndim == 4 else y.reshape(-1, y.shape[-1]).T
    np.testing.assert_allclose(made.reshape(expected.shape), expected, rtol=1e-4, atol=1e-4)
    assert np.array_equal(layer.from_rows(layer.rows(weights)), weights)


def test_layers_keep_more_of_their_outputs_and_the_scales_stay() -> None:
    model = fused(NETWORK)
    data = as_data(samples_of(model, 32))
    prepared = prepare_model(model, POLICY)
    layers = [one for node in prepared.graph.graph if (one := weighted_layer(node))]
    by_windows = collect_moments(prepared.graph, layers, data)
    moments = {layer.name: by_windows[layer.window_key] for layer in layers}
    first = layers[0]
    windows = [first.windows(v[first.source]) for v in stream_values(prepared.graph, [], data)]
    together = np.concatenate(windows, axis=2)
    np.testing.assert_allclose(
        moments[first.name],
        together @ together.transpose(0, 2, 1) / together.shape[2],
        rtol=1e-3,
        atol=1e-4,
    )
    stages = [
        place_integers(prepared, POLICY, calibrate(model), placement)
        for placement in (Placement(), Placement(rounding=SecondOrder(), moments=moments))
    ]
    held = [dict(s.graph.graph.initializers.items()) for s in stages]
    changed = 0
    for layer in layers:
        name = layer.node.inputs[1].name  # type: ignore[union-attr]
        plain, ours = (h[f"{name}_quantized"].const_value.numpy() for h in held)  # type: ignore[union-attr]
        scales = [np.atleast_1d(h[f"{name}_scale"].const_value.numpy()) for h in held]  # type: ignore[union-attr]
        assert np.array_equal(*scales)
        steps = layer.rows(layer.weights) / scales[0].reshape(layer.groups, -1, 1)
        plain_error, our_error = (
            row_errors(layer.rows(w.astype(np.float64)) - steps, moments[layer.name]).sum()
            for w in (plain, ours)
        )
        assert our_error <= plain_error * 1.02
        changed += not np.array_equal(plain, ours)
    assert changed >= 5
    notes = [n for n in stages[1].notes if n.pass_name == "round_weights"]
    assert len(notes) == len(layers)
