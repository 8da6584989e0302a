from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.errors import ContractError, DataError
from deploykit.graph.qdq import fold_qdq
from deploykit.model import Stage
from deploykit.passes.base import Findings, Pass, PassResult
from deploykit_quantize.policy import Observer, Recipe
from deploykit_quantize.quantizer import quantize_model
from deploykit_testing.graphs import parse
from deploykit_testing.quantized import (
    NETWORK,
    POLICY,
    calibrate,
    describe_nodes,
    fused,
    quantized,
    run_values,
    samples_of,
    scale_of,
    simulate,
    snr_db,
)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("method", ["minmax", "percentile", "mse"])
def test_a_network_keeps_its_signal_and_is_valid(seed: int, method: str) -> None:
    model = fused(NETWORK, seed=seed)
    result = quantize_model(model, POLICY, calibrate(model), Observer(method, 99.99))
    assert result.stage is Stage.QUANTIZED
    onnx.checker.check_model(ir.to_proto(result.graph), full_check=True)
    feeds = [{"x": s[None]} for s in samples_of(model)]
    floats = np.stack([run_values(model.graph, feed)["y"] for feed in feeds])
    rounded = np.stack([run_values(result.graph, feed)["y"] for feed in feeds])
    assert snr_db(floats, rounded) > 30


def test_the_given_model_is_left_as_it_is() -> None:
    model = fused(NETWORK)
    before = model.serialized()
    quantize_model(model, POLICY, calibrate(model))
    assert model.serialized() == before


def test_two_runs_give_the_same_bytes() -> None:
    model = fused(NETWORK)
    table = calibrate(model)
    first = quantize_model(model, POLICY, table).serialized()
    assert quantize_model(model, POLICY, table).serialized() == first


def test_structure_and_names() -> None:
    result = quantized(
        """agraph (float[1, 2, 4, 4] x, float[2, 2, 1, 1] W, float[2] B) => (float[1, 2, 4, 4] y) {
            c = Conv <kernel_shape = [1, 1]> (x, W, B)
            r = Relu (c)
            y = Add (r, x)
        }"""
    )
    assert describe_nodes(result.graph) == [
        "Q(x) > x_quantized",
        "DQ(x_quantized) > x_dequantized",
        "Conv(x_dequantized, W_dequantized, B_dequantized) > c",
        "Relu(c) > r",
        "Q(r) > r_quantized",
        "DQ(r_quantized) > r_dequantized",
        "Add(r_dequantized, x_dequantized) > y_float",
        "Q(y_float) > y_quantized",
        "DQ(y_quantized) > y",
    ]
    initializers = result.graph.graph.initializers
    assert initializers["W_quantized"].dtype is ir.DataType.INT8
    assert initializers["B_quantized"].dtype is ir.DataType.INT32
    assert "W" not in initializers
    assert [v.name for v in result.graph.graph.outputs] == ["y"]


def test_an_activation_with_another_reader_before_it_is_not_fused() -> None:
    result = quantized(
        """agraph (float[1, 2, 4, 4] x, float[2, 2, 1, 1] W) => (float[1, 2, 4, 4] y) {
            c = Conv <kernel_shape = [1, 1]> (x, W)
            r = Relu (c)
            y = Add (r, c)
        }"""
    )
    rows = describe_nodes(result.graph)
    assert "Q(c) > c_quantized" in rows
    assert "Relu(c_dequantized) > r" in rows


def test_a_float_op_reads_reals_and_a_quantized_one_behind_it_integers() -> None:
    result = quantized(
        """agraph (float[1, 2, 4, 4] x, float[2, 2, 1, 1] W0, float[2, 2, 1, 1] W1)
                => (float[1, 2, 4, 4] y, float[1, 2, 4, 4] e) {
            c = Conv <kernel_shape = [1, 1]> (x, W0)
            e = Elu <alpha = 1.0> (c)
            y = Conv <kernel_shape = [1, 1]> (e, W1)
        }"""
    )
    assert describe_nodes(result.graph) == [
        "Q(x) > x_quantized",
        "DQ(x_quantized) > x_dequantized",
        "Conv(x_dequantized, W0_dequantized) > c",
        "Q(c) > c_quantized",
        "DQ(c_quantized) > c_dequantized",
        "Elu(c_dequantized) > e",
        "Q(e) > e_quantized",
        "DQ(e_quantized) > e_dequantized",
        "Conv(e_dequantized, W1_dequantized) > y_float",
        "Q(y_float) > y_quantized",
        "DQ(y_quantized) > y",
    ]
    folded = fold_qdq(result.graph)
    kinds = {n.op_type: folded.runs_in_integers(n) for n in folded.model.graph}
    assert kinds == {
        "Conv": True, "DequantizeLinear": False, "Elu": False, "QuantizeLinear": False
    }  # fmt: skip
    assert "e" not in folded.params


def test_shared_weights_are_stored_once_and_copied_only_where_scales_differ() -> None:
    text = """agraph (float[1, 2, 4, 4] x, float[2, 2, 1, 1] W, float[2] B)
            => (float[1, 2, 4, 4] y) {
        a = Conv <kernel_shape = [1, 1]> (x, W, B)
        y = Conv <kernel_shape = [1, 1]> (a, W, B)
    }"""
    result = quantized(text)
    names = set(result.graph.graph.initializers)
    assert "W_quantized" in names
    assert "W_quantized_1" not in names
    # The bias has the input's scale as a factor: two of them.
    assert {"B_quantized", "B_quantized_1"} <= names


def test_grouped_transposed_convolution() -> None:
    text = """agraph (float[1, 4, 5, 5] x, float[4, 3, 2, 2] W, float[6] B)
            => (float[1, 6, 10, 10] y) {
        y = ConvTranspose <group = 2, kernel_shape = [2, 2], strides = [2, 2]> (x, W, B)
    }"""
    model = fused(text)
    result = quantize_model(model, POLICY, calibrate(model))
    folded = fold_qdq(result.graph)
    assert folded.params["W"].axis == 1
    assert len(folded.params["W"].scale) == 3
    assert len(folded.params["B"].scale) == 6
    assert folded.params["B"].scale[:3] == folded.params["B"].scale[3:]
    feed = {"x": samples_of(model, 1, seed=9)}
    assert snr_db(run_values(model.graph, feed)["y"], run_values(result.graph, feed)["y"]) > 30


def test_a_bias_beyond_int32_enlarges_the_scale_of_its_channel() -> None:
    model = fused(
        """agraph (float[1, 1, 4, 4] x) => (float[1, 2, 4, 4] y)
            <float[2, 1, 1, 1] w = {0.0000001, 1.0}, float[2] b = {3000.0, 0.5}> {
            y = Conv <kernel_shape = [1, 1]> (x, w, b)
        }"""
    )
    result = quantize_model(model, POLICY, calibrate(model))
    folded = fold_qdq(result.graph)
    assert abs(int(folded.integers["b"][0])) <= 2**30
    np.testing.assert_allclose(
        folded.params["b"].dequantize(folded.integers["b"]), [3000.0, 0.5], rtol=1e-3
    )
    feed = {"x": samples_of(model, 1)}
    assert snr_db(run_values(model.graph, feed)["y"], run_values(result.graph, feed)["y"]) > 40


@dataclass(frozen=True)
class SplitScale(Pass):
    """Rewrites y = Mul(x, k) to two halves, the way a policy's rewrites introduce values."""

    def apply(self, model: ir.Model) -> PassResult:
        findings = Findings(self.name)
        for node in list(model.graph):
            if node.op_type != "Mul":
                continue
            source, half = (
                node.inputs[0],
                ir.Value(
                    name="half", type=ir.TensorType(ir.DataType.FLOAT), shape=node.outputs[0].shape
                ),
            )
            factor = ir.Value(
                name="point_five", const_value=ir.Tensor(np.float32(0.5)), shape=ir.Shape(()),
                type=ir.TensorType(ir.DataType.FLOAT),
            )  # fmt: skip
            model.graph.register_initializer(factor)
            model.graph.insert_before(node, ir.Node("", "Mul", [source, factor], outputs=[half]))
            model.graph.insert_before(
                node, ir.Node("", "Sub", [half, half], outputs=[ir.Value(name="none")])
            )
            findings.matched(node, "halved")
        return findings.result()


def test_values_of_rewrites_get_derived_ranges_and_their_notes_are_kept() -> None:
    text = """agraph (float[1, 2, 4, 4] x) => (float[1, 2, 4, 4] y) <float k = {3.0}> {
        y = Mul (x, k)
    }"""
    model = fused(text)
    table = calibrate(model)
    result = quantize_model(model, replace(POLICY, rewrites=(SplitScale(),)), table)
    assert [note.reason for note in result.notes] == ["halved"]
    seen = table["x"]
    scale, _ = scale_of(result, "half_quantized")
    assert scale == pytest.approx((seen.maximum - seen.minimum) / 2 / 255, rel=1e-5)


@pytest.mark.parametrize(("transposed", "axis"), [(0, 1), (1, 0)])
def test_a_gemm_has_one_scale_an_output(transposed: int, axis: int) -> None:
    shape = "3, 7" if transposed else "7, 3"
    text = f"""agraph (float[1, 7] x, float[{shape}] W, float[3] B) => (float[1, 3] y) {{
        y = Gemm <transB = {transposed}> (x, W, B)
    }}"""
    model = fused(text)
    result = quantize_model(model, POLICY, calibrate(model))
    folded = fold_qdq(result.graph)
    assert (folded.params["W"].axis, len(folded.params["W"].scale)) == (axis, 3)
    feed = {"x": samples_of(model, 1)}
    assert snr_db(run_values(model.graph, feed)["y"], run_values(result.graph, feed)["y"]) > 30


def test_slopes_and_operands_of_elementwise_ops_are_integers_per_tensor() -> None:
    model = fused(
        """agraph (float[1, 2, 4, 4] x, float[2, 1, 1] W0, float[2, 1, 1] W1)
                => (float[1, 2, 4, 4] y) {
            p = PRelu (x, W0)
            y = Add (W1, p)
        }"""
    )
    folded = fold_qdq(quantize_model(model, POLICY, calibrate(model)).graph)
    assert all(folded.runs_in_integers(n) for n in folded.model.graph)
    assert {n: p.axis for n, p in folded.params.items() if n in folded.integers} == {
        "W0": None,
        "W1": None,
    }


def test_refusals() -> None:
    model = fused(NETWORK)
    table = calibrate(model)
    with pytest.raises(ContractError, match="quantized already"):
        quantize_model(quantize_model(model, POLICY, table), POLICY, table)
    dynamic = replace(POLICY, recipe=Recipe.parse("dynamic_wi8_afp32"))
    with pytest.raises(ContractError, match="static"):
        quantize_model(model, dynamic, table)
    other = fused("agraph (float[1, 2, 4, 4] x) => (float[1, 2, 4, 4] z) { z = Relu (x) }")
    with pytest.raises(DataError, match="no range is known for"):
        quantize_model(
            fused("agraph (float[1, 2, 4, 4] q) => (float[1, 2, 4, 4] y) { y = Relu (q) }"),
            POLICY,
            calibrate(other),
        )


def test_weights_that_are_not_finite_are_refused() -> None:
    model = fused(
        """agraph (float[1, 1, 4, 4] x, float[2, 1, 1, 1] W) => (float[1, 2, 4, 4] y) {
            y = Conv <kernel_shape = [1, 1]> (x, W)
        }"""
    )
    table = calibrate(model)
    weights = np.full((2, 1, 1, 1), np.nan, np.float32)
    model.graph.graph.initializers["W"].const_value = ir.Tensor(weights, name="W")
    with pytest.raises(DataError, match="not finite"):
        quantize_model(model, POLICY, table)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.booleans(), st.sampled_from(["Relu", "Clip", "Sigmoid", "none"]))
def test_folded_parameters_reproduce_the_numbers_of_the_stage(
    seed: int, join: bool, activation: str
) -> None:
    acts = {
        "Relu": "a = Relu (c)",
        "Clip": "a = Clip (c, zero, six)",
        "Sigmoid": "a = Sigmoid (c)",
        "none": "a = Mul (c, six)",
    }
    tail = (
        """j = Concat <axis = 1> (a, d)
           y = Conv <kernel_shape = [1, 1]> (j, W2, B2)"""
        if join
        else """j = Add (a, d)
           y = Conv <kernel_shape = [1, 1]> (j, W3, B2)"""
    )
    text = f"""agraph (float[1, 3, 6, 6] x, float[4, 3, 3, 3] W0, float[4] B0,
            float[4, 1, 1, 1] W1, float[5, 8, 1, 1] W2, float[5, 4, 1, 1] W3, float[5] B2)
            => (float[1, 5, 6, 6] y) <float zero = {{0.0}}, float six = {{6.0}}> {{
        c = Conv <pads = [1, 1, 1, 1], kernel_shape = [3, 3]> (x, W0, B0)
        {acts[activation]}
        d = Conv <group = 4, kernel_shape = [1, 1]> (a, W1)
        {tail}
    }}"""
    model = fused(text, seed=seed % 1000)
    result = quantize_model(model, POLICY, calibrate(model, 4))
    folded = fold_qdq(result.graph)
    assert all(
        folded.runs_in_integers(n) or n.op_type == "QuantizeLinear" for n in folded.model.graph
    )
    feed = {"x": samples_of(model, 1, seed=seed)}
    staged = run_values(result.graph, feed)
    simulated = simulate(folded, feed)
    for name in folded.params:
        if name in folded.integers:
            continue
        held = folded.stage_values[name]
        # The same integers, unless a sum lies on a tie that another order of adding breaks.
        steps = np.abs(simulated[name] - staged[held]) / folded.params[name].scale[0]
        assert steps.max() <= 1.01
        assert np.mean(steps > 0.01) < 0.02
    assert set(folded.stage_values) >= set(folded.params) - set(folded.integers)


def test_a_network_with_our_functions_is_quantized() -> None:
    header = '<ir_version: 9, opset_import: ["" : 20, "deploykit" : 1]>\n'
    text = """agraph (float[1, 4, 4, 4] x, float[4, 4, 1, 1] W) => (float[1, 4, 4, 4] y) {
        c = Conv <kernel_shape = [1, 1]> (x, W)
        s = deploykit.ChannelShuffle <groups = 2> (c)
        y = Conv <kernel_shape = [1, 1]> (s, W)
    }
    <domain: "deploykit", opset_import: ["" : 20]>
    ChannelShuffle <groups> (x) => (y) { y = Identity (x) }"""
    graph = parse(text, header=header)
    for node in graph.graph:
        for value in node.outputs:
            value.dtype = ir.DataType.FLOAT
    model = replace(fused(NETWORK), graph=graph)
    policy = replace(
        POLICY,
        quantized_ops=POLICY.quantized_ops | {"ChannelShuffle"},
        same_scale_ops=POLICY.same_scale_ops | {"ChannelShuffle"},
    )
    table = calibrate(model)
    result = quantize_model(model, policy, table)
    assert scale_of(result, "s_quantized") == scale_of(result, "c_quantized")
    feed = {"x": samples_of(model, 1)}
    assert snr_db(run_values(graph, feed)["y"], run_values(result.graph, feed)["y"]) > 30
