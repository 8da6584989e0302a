from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from deploykit.errors import ContractError
from deploykit.graph.qdq import fold_qdq
from deploykit.model import Model, SourceInfo, Stage
from deploykit_quantize.adopt_qdq import adopt_quantization
from deploykit_quantize.policy import FixedParams, Policy, Recipe
from deploykit_testing.graphs import parse, run

POLICY = Policy(
    recipe=Recipe.parse("static_wi8_ai8"),
    quantized_ops=frozenset({"Concat", "Conv", "MaxPool", "Relu", "Sigmoid"}),
    same_scale_ops=frozenset({"MaxPool"}),
    joined_scale_ops=frozenset({"Concat"}),
    fixed_outputs={"Sigmoid": FixedParams(1 / 256, -128)},
)

POOL = """
pooled (float[1,2,4,4] x) => (float[1,2,2,2] y)
<float s1 = {0.1}, int8 z1 = {3}, float s2 = {0.05}, int8 z2 = {-7}>
{
    xq = QuantizeLinear (x, s1, z1)
    xd = DequantizeLinear (xq, s1, z1)
    p = MaxPool <kernel_shape = [2, 2], strides = [2, 2], pads = [0, 0, 0, 0]> (xd)
    pq = QuantizeLinear (p, s2, z2)
    y = DequantizeLinear (pq, s2, z2)
}"""

BARE_POOL = """
pooled (float[1,2,4,4] x) => (float[1,2,2,2] y)
<float s1 = {0.1}, int8 z1 = {3}>
{
    xq = QuantizeLinear (x, s1, z1)
    xd = DequantizeLinear (xq, s1, z1)
    y = MaxPool <kernel_shape = [2, 2], strides = [2, 2], pads = [0, 0, 0, 0]> (xd)
}"""

JOINED = """
joined (float[1,2,4,4] x) => (float[1,4,4,4] y)
<float s1 = {0.1}, int8 z1 = {3}, float s2 = {0.05}, int8 z2 = {-7},
 float s3 = {0.2}, int8 z3 = {1}>
{
    aq = QuantizeLinear (x, s1, z1)
    a = DequantizeLinear (aq, s1, z1)
    bq = QuantizeLinear (x, s2, z2)
    b = DequantizeLinear (bq, s2, z2)
    c = Concat <axis = 1> (a, b)
    cq = QuantizeLinear (c, s3, z3)
    y = DequantizeLinear (cq, s3, z3)
}"""

GATE = """
gated (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float s1 = {0.1}, int8 z1 = {3}, float s2 = {0.005}, int8 z2 = {-100}>
{
    xq = QuantizeLinear (x, s1, z1)
    xd = DequantizeLinear (xq, s1, z1)
    g = Sigmoid (xd)
    gq = QuantizeLinear (g, s2, z2)
    y = DequantizeLinear (gq, s2, z2)
}"""


def fused(text: str) -> Model:
    return Model(parse(text), Stage.FUSED, "net", SourceInfo("onnx"))


def params_around(model: Model, op_type: str) -> tuple[list[tuple[float, int]], tuple[float, int]]:
    """Scale and zero point of each input, and of the output, of the one node of that type."""
    folded = fold_qdq(model.graph)
    (node,) = [n for n in folded.model.graph if n.op_type == op_type]
    assert folded.runs_in_integers(node)

    def of(value: ir.Value | None) -> tuple[float, int]:
        assert value is not None
        params = folded.params[value.name or ""]
        return round(params.scale[0], 6), params.zero_point[0]

    return [of(v) for v in node.inputs], of(node.outputs[0])


def matched(model: Model) -> list[str]:
    return [note.reason for note in model.notes if note.matched]


def outputs_of(model: Model) -> np.ndarray:
    x = np.random.default_rng(3).normal(size=(1, 2, 4, 4)).astype(np.float32)
    return np.asarray(run(model.graph, {"x": x})[0])


def test_a_moved_value_is_rounded_in_the_inputs_scale_before_its_own() -> None:
    adopted = adopt_quantization(fused(POOL), POLICY)

    assert params_around(adopted, "MaxPool") == ([(0.1, 3)], (0.1, 3))
    assert len(matched(adopted)) == 1
    # A maximum of representable values is representable: nothing changes.
    np.testing.assert_array_equal(outputs_of(adopted), outputs_of(fused(POOL)))


def test_a_moved_value_without_a_scale_gets_the_inputs_exactly() -> None:
    adopted = adopt_quantization(fused(BARE_POOL), POLICY)

    assert params_around(adopted, "MaxPool") == ([(0.1, 3)], (0.1, 3))
    np.testing.assert_array_equal(outputs_of(adopted), outputs_of(fused(BARE_POOL)))


def test_inputs_of_a_concat_are_requantized_to_the_results_scale() -> None:
    adopted = adopt_quantization(fused(JOINED), POLICY)

    assert params_around(adopted, "Concat") == ([(0.2, 1), (0.2, 1)], (0.2, 1))
    np.testing.assert_array_equal(outputs_of(adopted), outputs_of(fused(JOINED)))


def test_a_fixed_output_scale_stands_before_the_users_own() -> None:
    adopted = adopt_quantization(fused(GATE), POLICY)

    _, result = params_around(adopted, "Sigmoid")
    assert result == (round(1 / 256, 6), -128)
    difference = np.abs(outputs_of(adopted) - outputs_of(fused(GATE))).max()
    assert 0 < difference <= 0.00501  # one step of the user's scale


def test_what_fits_is_left_as_it_is() -> None:
    text = POOL.replace("(p, s2, z2)", "(p, s1, z1)").replace("(pq, s2, z2)", "(pq, s1, z1)")
    model = fused(text)

    adopted = adopt_quantization(model, POLICY)

    assert matched(adopted) == []
    assert [n.op_type for n in adopted.graph.graph] == [n.op_type for n in model.graph.graph]
    np.testing.assert_array_equal(outputs_of(adopted), outputs_of(model))


def test_what_stays_float_is_told() -> None:
    head, _, tail = BARE_POOL.partition("MaxPool <")
    text = f"{head}Relu {tail.partition('> ')[2]}"
    model = fused(text.replace("float[1,2,2,2] y", "float[1,2,4,4] y"))

    adopted = adopt_quantization(model, POLICY)

    assert any("runs in float: 'y' has no scale" in note.reason for note in adopted.notes)


def test_asymmetric_weights_are_quantized_again_symmetrically() -> None:
    text = """
conv (float[1,2,4,4] x) => (float[1,3,2,2] y)
<float s1 = {0.1}, int8 z1 = {3}, float sw = {0.01}, uint8 zw = {100}, uint8[3,2,3,3] wq>
{
    xq = QuantizeLinear (x, s1, z1)
    xd = DequantizeLinear (xq, s1, z1)
    w = DequantizeLinear (wq, sw, zw)
    c = Conv <kernel_shape = [3, 3], pads = [0, 0, 0, 0], strides = [1, 1]> (xd, w)
    cq = QuantizeLinear (c, s1, z1)
    y = DequantizeLinear (cq, s1, z1)
}"""
    text = text.replace(
        "uint8[3,2,3,3] wq>",
        f"uint8[3,2,3,3] wq = {{{', '.join(str(7 * i % 256) for i in range(54))}}}>",
    )
    adopted = adopt_quantization(fused(text), POLICY)

    folded = fold_qdq(adopted.graph)
    (node,) = [n for n in folded.model.graph if n.op_type == "Conv"]
    weights = node.inputs[1]
    assert weights is not None
    params = folded.params[weights.name or ""]
    assert params.dtype == "int8"
    assert set(params.zero_point) == {0}
    assert params.axis == 0
    reals = (np.arange(54) * 7 % 256 - 100).reshape(3, 2, 3, 3) * 0.01
    held = params.dequantize(folded.integers[weights.name or ""])
    assert np.abs(held - reals).max() <= max(params.scale) / 2 * 1.001


def test_a_float_model_and_a_float_recipe_are_refused() -> None:
    plain = "net (float[1,2] x) => (float[1,2] y) { y = Relu (x) }"
    with pytest.raises(ContractError, match="is not quantized"):
        adopt_quantization(fused(plain), POLICY)
    with pytest.raises(ContractError, match="for floats"):
        adopt_quantization(fused(POOL), Policy(Recipe.parse("weight_only_wi8")))


RESHAPED = """
flat (float[1,2,4,4] x) => (float[1,32] y)
<float s1 = {0.1}, int8 z1 = {3}, int64[2] to = {1, 32}>
{
    r = Relu (x)
    f = Reshape (r, to)
    fq = QuantizeLinear (f, s1, z1)
    y = DequantizeLinear (fq, s1, z1)
}"""

TWICE = """
twice (float[1,2,4,4] x) => (float[1,2,4,4] y)
<float s0 = {0.1}, int8 z0 = {3}, float s1 = {%s}, int8 z1 = {-128},
 float s2 = {0.02}, int8 z2 = {-128}>
{
    xq = QuantizeLinear (x, s0, z0)
    xd = DequantizeLinear (xq, s0, z0)
    r = Relu (xd)
    aq = QuantizeLinear (r, s1, z1)
    a = DequantizeLinear (aq, s1, z1)
    bq = QuantizeLinear (r, s2, z2)
    b = DequantizeLinear (bq, s2, z2)
    y = Add (a, b)
}"""


def test_rounding_behind_a_move_is_rounding_before_it() -> None:
    policy = replace(
        POLICY,
        quantized_ops=POLICY.quantized_ops | {"Reshape"},
        same_scale_ops=frozenset({"Reshape"}),
    )
    adopted = adopt_quantization(fused(RESHAPED), policy)

    folded = fold_qdq(adopted.graph)
    (node,) = [n for n in folded.model.graph if n.op_type == "Reshape"]
    assert folded.runs_in_integers(node)
    np.testing.assert_array_equal(outputs_of(adopted), outputs_of(fused(RESHAPED)))


@pytest.mark.parametrize(("other", "quantizes"), [("0.02", 2), ("0.05", 3)])
def test_a_result_is_rounded_once(other: str, quantizes: int) -> None:
    adopted = adopt_quantization(fused(TWICE % other), POLICY)

    folded = fold_qdq(adopted.graph)
    (relu,) = [n for n in folded.model.graph if n.op_type == "Relu"]
    assert folded.runs_in_integers(relu)
    assert folded.params[relu.outputs[0].name or ""].scale == (np.float32(other),)
    found = [n for n in adopted.graph.graph if n.op_type == "QuantizeLinear"]
    assert len(found) == quantizes
    error = np.abs(outputs_of(adopted) - outputs_of(fused(TWICE % other))).max()
    assert error <= float(other)
