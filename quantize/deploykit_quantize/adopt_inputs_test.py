"""Policies that round what some ops read and nothing else: made here, and adopted from others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from deploykit.graph.read_qdq import is_dequantize, is_quantize, read_params
from deploykit.model import Model, SourceInfo, Stage
from deploykit.tensors import Array, QuantParams
from deploykit_quantize.adopt_qdq import adopt_quantization
from deploykit_quantize.policy import Policy, Recipe, TensorRule
from deploykit_quantize.quantizer import quantize_model
from deploykit_testing.graphs import parse, run
from deploykit_testing.quantized import (
    NETWORK,
    calibrate,
    fused,
    run_values,
    samples_of,
)

POLICY = Policy(
    recipe=replace(
        Recipe.parse("static_wi8_ai8"),
        activations=TensorRule("int8", symmetric=True, per_channel=False),
    ),
    quantized_ops=frozenset({"Conv", "Gemm"}),
    inputs_only=True,
    group_scales=True,
)


def pairs_of(graph: ir.Model) -> dict[str, QuantParams]:
    """Value that is quantized → its parameters, constants left out."""
    return {
        node.inputs[0].name or "": read_params(node)  # type: ignore[union-attr]
        for node in graph.graph
        if is_quantize(node)
    }


def readers_of_pairs(graph: ir.Model) -> set[tuple[str, int]]:
    """(op, input) of all that reads what a DequantizeLinear makes."""
    return {
        (use.node.op_type, use.idx)
        for node in graph.graph
        if is_dequantize(node)
        for use in node.outputs[0].uses()
    }


# -- made by the quantizer


def test_only_what_the_ops_read_is_quantized() -> None:
    model = fused(NETWORK)
    stage = quantize_model(model, POLICY, calibrate(model))
    assert readers_of_pairs(stage.graph) == {("Conv", 0), ("Conv", 1), ("Gemm", 0), ("Gemm", 1)}
    assert sorted(pairs_of(stage.graph)) == ["e", "f", "m", "r0", "r1", "r3", "x"]
    assert [v.name for v in stage.graph.graph.outputs] == ["y"]
    biases = [n.inputs[2] for n in stage.graph.graph if n.op_type == "Conv" and len(n.inputs) > 2]
    assert all(b is not None and b.const_value is not None for b in biases)


def test_activations_are_symmetric_over_what_was_seen() -> None:
    model = fused(NETWORK)
    table = calibrate(model)
    for name, params in pairs_of(quantize_model(model, POLICY, table).graph).items():
        seen = table.values[name]
        largest = max(abs(seen.minimum), abs(seen.maximum))
        assert params.zero_point == (0,)
        assert params.scale[0] == pytest.approx(largest / 127, rel=1e-6)


def test_a_value_that_is_also_read_in_floats_is_whole_there() -> None:
    model = fused(NETWORK)
    stage = quantize_model(model, POLICY, calibrate(model))
    nodes = {n.outputs[0].name: n for n in stage.graph.graph}
    assert [v.name for v in nodes["ghost"].inputs if v is not None] == ["e", "g"]
    assert [v.name for v in nodes["s"].inputs if v is not None] == ["c2", "r0"]


def test_the_stage_stays_near_the_float_model() -> None:
    model = fused(NETWORK)
    stage = quantize_model(model, POLICY, calibrate(model))
    feeds = {"x": samples_of(model, 1)}
    wanted, found = run_values(model.graph, feeds)["y"], run_values(stage.graph, feeds)["y"]
    noise = float(np.square(wanted - found).sum())
    assert noise > 0
    assert 10 * np.log10(float(np.square(wanted).sum()) / noise) > 25


GROUPED = """g (float[1,4,5,5] x, float[6,2,3,3] W) => (float[1,6,3,3] y)
{
    y = Conv <group = 2, kernel_shape = [3, 3]> (x, W)
}"""


def test_the_channels_of_a_group_share_a_weight_scale() -> None:
    model = fused(GROUPED)
    weights = model.graph.graph.initializers["W"].const_value
    assert weights is not None
    largest = np.abs(weights.numpy()).reshape(2, -1).max(axis=1)
    stage = quantize_model(model, POLICY, calibrate(model))
    (params,) = [read_params(n) for n in stage.graph.graph if is_dequantize(n)][1:]
    np.testing.assert_allclose(params.scale, np.repeat(largest / 127, 3), rtol=1e-6)
    own = quantize_model(model, replace(POLICY, group_scales=False), calibrate(model))
    (params,) = [read_params(n) for n in own.graph.graph if is_dequantize(n)][1:]
    assert len(set(params.scale)) == 6


DEPTHWISE = """g (float[1,4,5,5] x, float[4,1,3,3] D, float[2,4,1,1] W) => (float[1,2,3,3] y)
{
    d = Conv <group = 4, kernel_shape = [3, 3]> (x, D)
    y = Conv <kernel_shape = [1, 1]> (d, W)
}"""


def test_depthwise_convolutions_stay_floats_where_that_is_wanted() -> None:
    model = fused(DEPTHWISE)
    stage = quantize_model(model, replace(POLICY, float_depthwise=True), calibrate(model))
    assert sorted(pairs_of(stage.graph)) == ["d"]
    assert sorted(pairs_of(quantize_model(model, POLICY, calibrate(model)).graph)) == ["d", "x"]
    depthwise = next(n for n in stage.graph.graph if n.op_type == "Conv")
    assert depthwise.inputs[1] is not None
    assert depthwise.inputs[1].producer() is None


# -- adopted

AFFINE = """net (float[1,2,4,4] x) => (float[1,3,4,4] y)
<float s = {0.05}, int8 z = {-20}, float[2] ws = {0.01, 0.02}, int8[2] wz = {0, 0},
 int8[2,2,1,1] W = {10, -20, 30, 127}, float[2] bs = {0.0005, 0.001}, int32[2] b = {1000, -500},
 float s2 = {0.02}, uint8 z2 = {0}, float vs = {0.01}, int8 vz = {0},
 int8[3,2,1,1] V = {1, 2, 3, -4, 5, 6}, float os = {0.1}, int8 oz = {0}>
{
    xq = QuantizeLinear (x, s, z)
    xd = DequantizeLinear (xq, s, z)
    w = DequantizeLinear <axis = 0> (W, ws, wz)
    bias = DequantizeLinear <axis = 0> (b, bs)
    c = Conv <kernel_shape = [1, 1]> (xd, w, bias)
    cq = QuantizeLinear (c, s2, z2)
    cd = DequantizeLinear (cq, s2, z2)
    v = DequantizeLinear (V, vs, vz)
    o = Conv <kernel_shape = [1, 1]> (cd, v)
    oq = QuantizeLinear (o, os, oz)
    y = DequantizeLinear (oq, os, oz)
}"""


def adopted(text: str) -> Model:
    return adopt_quantization(Model(parse(text), Stage.FUSED, "net", SourceInfo("onnx")), POLICY)


def uniform(low: float = -1.0, high: float = 1.0) -> Mapping[str, Array]:
    values = np.random.default_rng(0).uniform(low, high, (1, 2, 4, 4))
    return {"x": values.astype(np.float32)}


def test_uint8_with_its_zero_in_the_middle_is_symmetric_int8() -> None:
    middle = AFFINE.replace("int8 z = {-20}", "uint8 z = {128}")
    stage = adopted(middle)
    assert pairs_of(stage.graph)["x"] == QuantParams((np.float32(0.05).item(),), (0,), "int8")
    assert not any("input 'x'" in note.reason for note in stage.notes)


def test_an_affine_scale_becomes_symmetric_over_the_same_range() -> None:
    stage = adopted(AFFINE)
    pairs = pairs_of(stage.graph)
    assert pairs["x"].scale[0] == pytest.approx(0.05 * 147 / 127, rel=1e-6)
    assert pairs["x"].zero_point == (0,)
    assert stage.stage is Stage.QUANTIZED
    assert any("symmetric" in note.reason for note in stage.notes)


def test_symmetric_scales_and_integers_are_kept() -> None:
    text = AFFINE.replace("int8 z = {-20}", "int8 z = {0}")
    stage = adopted(text)
    assert pairs_of(stage.graph)["x"] == QuantParams((float(np.float32(0.05)),), (0,))
    integers = [
        n.inputs[0].const_value.numpy()  # type: ignore[union-attr]
        for n in stage.graph.graph
        if is_dequantize(n) and n.inputs[0] is not None and n.inputs[0].const_value is not None
    ]
    assert [list(i.reshape(-1)) for i in integers] == [[10, -20, 30, 127], [1, 2, 3, -4, 5, 6]]


def test_integers_from_zero_on_still_clamp() -> None:
    """A quantizer took the Relu out: what the saturation did, a Clip does."""
    stage = adopted(AFFINE)
    clips = [n for n in stage.graph.graph if n.op_type == "Clip"]
    assert [n.inputs[0].name for n in clips] == ["c"]  # type: ignore[union-attr]
    values = run_values(stage.graph, uniform())
    assert values["c"].min() < 0
    assert values["c_clamped"].min() == 0
    assert values["c_clamped"].max() <= np.float32(0.02) * 255


@pytest.mark.parametrize("zero", ["-20", "0"])
def test_the_result_is_near_what_the_given_model_computes(zero: str) -> None:
    text = AFFINE.replace("int8 z = {-20}", f"int8 z = {{{zero}}}")
    (wanted,) = run(parse(text), uniform())
    found = run_values(adopted(text).graph, uniform())["y"]
    # The output is no longer rounded (steps of 0.1), the first input is rounded otherwise.
    assert np.abs(found - wanted).max() <= 0.06
    assert np.abs(wanted).max() > 0.1


def test_biases_are_the_floats_they_stand_for() -> None:
    stage = adopted(AFFINE)
    conv = next(n for n in stage.graph.graph if n.op_type == "Conv")
    bias = conv.inputs[2]
    assert bias is not None
    assert bias.const_value is not None
    np.testing.assert_allclose(bias.const_value.numpy(), [0.5, -0.5], rtol=1e-6)


def test_nothing_but_inputs_of_the_ops_is_quantized() -> None:
    stage = adopted(AFFINE)
    assert readers_of_pairs(stage.graph) == {("Conv", 0), ("Conv", 1)}
    assert sorted(pairs_of(stage.graph)) == ["c_clamped", "x"]
    assert [v.name for v in stage.graph.graph.outputs] == ["y"]


def test_asymmetric_weights_are_quantized_again() -> None:
    text = AFFINE.replace("int8 vz = {0}", "int8 vz = {4}")
    stage = adopted(text)
    wanted, found = run(parse(text), uniform())[0], run_values(stage.graph, uniform())["y"]
    assert np.abs(found - wanted).max() <= 0.06
    assert any("quantized again" in note.reason for note in stage.notes)


def test_an_op_with_float_weights_stays_float() -> None:
    text = """net (float[1,2,4,4] x, float[3,2,1,1] W) => (float[1,3,4,4] y)
    <float s = {0.05}, int8 z = {0}>
    {
        xq = QuantizeLinear (x, s, z)
        xd = DequantizeLinear (xq, s, z)
        y = Conv <kernel_shape = [1, 1]> (xd, W)
    }"""
    assert pairs_of(adopted(text).graph) == {}
