"""A graph counted: totals, absorbed clamps, uncounted ops, element sizes, the peak."""

from __future__ import annotations

import pytest

from deploykit.cost.count import count_graph
from deploykit.cost.layer import ElementSizes
from deploykit.cost.profile import profile_model
from deploykit.model import Precision
from deploykit_testing.graphs import as_model, parse
from deploykit_testing.static_graphs import parse_static

BLOCK = """g (float[1, 4, 8, 8] x, float[8, 4, 1, 1] W, float[8] B, float[8, 1, 3, 3] D)
    => (float[1, 8, 8, 8] y) {
    a = Conv (x, W, B)
    r = Relu (a)
    d = Conv <pads = [1, 1, 1, 1], group = 8> (r, D)
    y = Add (d, r)
}"""


def test_a_clamp_belongs_to_the_layer_before_it() -> None:
    loose = count_graph(parse_static(BLOCK), "loose", ElementSizes(), absorb=False)
    tight = count_graph(parse_static(BLOCK), "tight", ElementSizes(), absorb=True)
    assert [x.op_type for x in loose.layers] == ["Conv", "Relu", "Conv", "Add"]
    assert [x.op_type for x in tight.layers] == ["Conv + Relu", "Conv", "Add"]
    assert tight.flops == loose.flops
    assert loose.mac_bytes - tight.mac_bytes == 2 * 4 * 512  # the Relu's reading and writing
    first = tight.layers[0]
    assert first.name == "r"
    assert first.kind == "pointwise"
    assert first.flops == 2 * 512 * 4 + 512 + 512
    assert first.mac_bytes == 4 * (256 + 512 + 32 + 8)
    assert tight.layers[1].kind == "depthwise 3x3"


def test_a_clamp_with_two_readers_before_it_stays_a_layer() -> None:
    text = BLOCK.replace("y = Add (d, r)", "y = Add (d, a)")
    cost = count_graph(parse_static(text), "test", ElementSizes(), absorb=True)
    assert [x.op_type for x in cost.layers] == ["Conv", "Relu", "Conv", "Add"]


def test_element_sizes() -> None:
    by = {
        p: count_graph(parse_static(BLOCK), "t", ElementSizes.of(p), absorb=True).layers[0]
        for p in Precision
    }
    assert by[Precision.INT8].mac_bytes == 256 + 512 + 32 + 4 * 8
    assert by[Precision.W8].weight_bytes == 32 + 4 * 8
    assert by[Precision.FP16].weight_bytes == 2 * 40
    assert by[Precision.FP16].output_bytes == 4 * 512
    assert len({x.flops for x in by.values()}) == 1


def test_weights_that_are_shared_count_once_in_the_total() -> None:
    text = """g (float[1, 4, 2, 2] x, float[4, 4, 1, 1] W) => (float[1, 4, 2, 2] y) {
        a = Conv (x, W)
        y = Conv (a, W) }"""
    cost = count_graph(parse_static(text), "test", ElementSizes(), absorb=True)
    assert cost.parameters == 16
    assert cost.weight_bytes == 64
    assert [x.parameters for x in cost.layers] == [16, 16]


def test_uncounted_ops_are_told_and_not_zero() -> None:
    text = """g (float[4] x) => (float[4] y) {
        a = Sin (x)
        b = Cos (a)
        c = Sin (b)
        y = Relu (c) }"""
    cost = count_graph(parse_static(text), "test", ElementSizes(), absorb=True)
    assert cost.uncounted == {"Cos": 1, "Sin": 2}
    assert cost.format_uncounted() == "3 ops uncounted: 1 Cos, 2 Sin"
    assert [x.counted for x in cost.layers] == [False, False, False, True]
    assert cost.flops == 4


def test_peak_holds_what_is_alive_together() -> None:
    cost = count_graph(parse_static(BLOCK), "test", ElementSizes(), absorb=True)
    # d is made while r waits for the Add; at the Add, d and r and y are alive.
    assert cost.peak_activation_bytes == 4 * 3 * 512
    assert cost.activation_bytes == 4 * 3 * 512


def test_peak_sees_through_views() -> None:
    text = """g (float[1, 6, 2, 2] x) => (float[1, 24] y) {
        shape = Constant <value_ints = [1, 24]> ()
        a = Neg (x)
        f = Reshape (a, shape)
        y = Abs (f) }"""
    cost = count_graph(parse_static(text), "test", ElementSizes(), absorb=True)
    assert cost.peak_activation_bytes == 4 * 2 * 24
    view = next(x for x in cost.layers if x.op_type == "Reshape")
    assert (view.mac_bytes, view.activation_bytes, view.is_view) == (0, 0, True)


@pytest.mark.parametrize(
    ("attributes", "weight", "kind"),
    [
        ("", "8, 4, 1, 1", "pointwise"),
        ("strides = [2, 2]", "8, 4, 1, 1", "pointwise /2"),
        ("group = 2", "8, 2, 3, 3", "grouped 3x3 g=2"),
        ("group = 4, strides = [2, 2]", "8, 1, 5, 5", "depthwise 5x5 /2"),
        ("", "8, 4, 1, 7", "conv 1x7"),
    ],
)
def test_kinds(attributes: str, weight: str, kind: str) -> None:
    given = f"<{attributes}>" if attributes else ""
    model = parse_static(
        f"""g (float[1, 4, 16, 16] x, float[{weight}] W) => (float[1, 8, a, b] y) {{
            y = Conv {given} (x, W) }}"""
    )
    profile = profile_model(as_model(model))
    assert profile.after.layers[0].kind == kind


def test_before_and_after_fusion() -> None:
    text = """g (float[1, 3, 8, 8] x, float[4, 3, 3, 3] W, float[4] S, float[4] B, float[4] Mean,
        float[4] Var) => (float[1, 4, 6, 6] y) {
        c = Conv (x, W)
        n = BatchNormalization (c, S, B, Mean, Var)
        g = Sigmoid (n)
        y = Mul (n, g) }"""
    profile = profile_model(as_model(parse_static(text)))
    assert [x.op_type for x in profile.before.layers] == [
        "Conv", "BatchNormalization", "Sigmoid", "Mul"
    ]  # fmt: skip
    assert [x.op_type for x in profile.after.layers] == ["Conv", "deploykit::Silu"]
    assert profile.before.parameters == 108 + 8
    assert profile.after.parameters == 108 + 4
    assert profile.before.mult_adds == profile.after.mult_adds == 4 * 36 * 27
    assert profile.before.mac_bytes > profile.after.mac_bytes


def test_profiling_leaves_the_model_alone_and_repeats() -> None:
    model = as_model(parse_static(BLOCK))
    before = model.serialized()
    assert profile_model(model) == profile_model(model)
    assert model.serialized() == before


def test_q_and_dq_nodes_are_no_layers() -> None:
    text = """g (float[1, 8, 4, 4] x, float[12, 8, 1, 1] W) => (float[1, 12, 4, 4] y) {
        s = Constant <value_float = 0.1> ()
        z = Constant <value = int8 {0}> ()
        xq = QuantizeLinear (x, s, z)
        xd = DequantizeLinear (xq, s, z)
        wq = QuantizeLinear (W, s, z)
        wd = DequantizeLinear (wq, s, z)
        c = Conv (xd, wd)
        cq = QuantizeLinear (c, s, z)
        y = DequantizeLinear (cq, s, z) }"""
    after = profile_model(as_model(parse(text)), Precision.INT8).after
    assert [x.op_type for x in after.layers] == ["Conv"]
    assert after.parameters == 96
    assert after.mac_bytes == 128 + 96 + 192
