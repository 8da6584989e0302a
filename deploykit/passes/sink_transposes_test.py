"""NHWC arithmetic between NCHW convolutions loses its transposes; what cannot stays right."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploykit.passes.base import run_passes
from deploykit.passes.canonicalize import Canonicalize
from deploykit.passes.eliminate_identities import EliminateIdentities
from deploykit.passes.fold_constants import FoldConstants
from deploykit.passes.infer_shapes import InferShapes
from deploykit.passes.inline_functions import InlineFunctions
from deploykit.passes.remove_unused import RemoveUnused
from deploykit.passes.sink_transposes import SinkTransposes, moves_elements
from deploykit_testing.graphs import (
    assert_described,
    assert_same_numbers,
    ops,
    parse,
    reasons,
)

_TO_NHWC, _TO_NCHW = "Transpose <perm = [0, 2, 3, 1]>", "Transpose <perm = [0, 3, 1, 2]>"
_BEFORE = (InlineFunctions(), FoldConstants(), InferShapes(), Canonicalize())
_CONSTANTS = """int64[1] last = {3}, int64[2] spatial = {1, 2}, int64[8] pads = {0,1,0,0,0,0,2,0},
    int64[1] at_0 = {0}, int64[1] at_1 = {1}, int64[1] at_3 = {3}, int64[1] at_4 = {4},
    int64[4] doubled = {1, 10, 12, 4}, int64[4] pixel = {1, 1, 1, 4}, int64[2] flat = {1, 120},
    int64[3] rows = {1, 5, 24}, int64[4] one_map = {1, 1, 1, 4}, float third = {0.33},
    float[4] vector = {1, 2, 3, 4}, float zero = {0}, float six = {6}, int64[2] halves = {2, 2},
    int64[3] picked = {2, 0, 1}, float[4] slopes = {0.1, 0.2, 0.3, 0.4}, int8 nil = {0},
    int64[2] flat_4 = {1, 4}, int64[4] nhwc = {1, 5, 6, 4}"""


def _text(body: str, outputs: str = "float[A,B,C,D] y", weights: str = "") -> str:
    """``x`` is (1, 4, 5, 6); ``h`` is its NHWC."""
    inputs = f"float[1,4,5,6] x{weights}"
    return f"g ({inputs}) => ({outputs}) <{_CONSTANTS}> {{ h = {_TO_NHWC} (x) {body} }}"


def _check(text: str, expected: list[str], *, seed: int = 0) -> list[str]:
    """The ops that are left, numbers and names as before; why the pass left what it left."""
    before = parse(text, seed=seed)
    after = before.clone()
    notes = run_passes(after, [*_BEFORE, SinkTransposes(), EliminateIdentities(), RemoveUnused()])
    assert ops(after) == expected
    assert_described(after)
    assert_same_numbers(before, after)
    return reasons([n for n in notes if n.pass_name == "sink_transposes"])


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("r = Relu (h)", ["Relu"]),
        ("r = Clip (h, zero, six)", ["Clip"]),
        ("r = Mul (h, h)", ["Mul"]),
        ("r = Add (h, vector)", ["Add"]),
        ("r = Mul (h, third)", ["Mul"]),
        ("s = Sigmoid (h) r = Mul (s, h)", ["Sigmoid", "Mul"]),
        ("r = PRelu (h, slopes)", ["PRelu"]),
        ("r = Pad (h, pads)", ["Pad"]),
        ("r = Slice (h, at_1, at_4, at_1)", ["Slice"]),
        ("r = Slice (h, at_1, at_3, last)", ["Slice"]),
        ("r = Softmax <axis = 3> (h)", ["Softmax"]),
        ("r = Concat <axis = 3> (h, h)", ["Concat"]),
        ("a, b = Split <axis = 3> (h, halves) r = Concat <axis = 3> (b, a)", ["Split", "Concat"]),
        ("r = Gather <axis = 3> (h, picked)", ["Gather"]),
        ('r = Resize <mode = "nearest"> (h, , , doubled)', ["Resize"]),
        ("r = ReduceMean <keepdims = 1> (h, spatial)", ["ReduceMean"]),
        ("m = ReduceMean <keepdims = 1> (h, spatial) r = Mul (h, m)", ["ReduceMean", "Mul"]),
        ("q = QuantizeLinear (h, third, nil) r = DequantizeLinear (q, third, nil)",
         ["QuantizeLinear", "DequantizeLinear"]),
    ],
)  # fmt: skip
def test_the_pair_around_an_op_is_gone(body: str, left: list[str]) -> None:
    assert _check(_text(f"{body} y = {_TO_NCHW} (r)"), left) == []


def test_squeeze_and_excite_of_an_nhwc_network() -> None:
    body = f"""m = ReduceMean <keepdims = 0> (h, spatial) p = Reshape (m, pixel)
        c = {_TO_NCHW} (p) e = Conv (c, W) s = Sigmoid (e) n = {_TO_NHWC} (s)
        r = Mul (h, n) y = {_TO_NCHW} (r)"""
    left = ["ReduceMean", "Reshape", "Conv", "Sigmoid", "Mul"]
    assert _check(_text(body, weights=", float[4,4,1,1] W"), left) == []


def test_an_operand_of_one_pixel_needs_no_transpose() -> None:
    body = f"""m = ReduceMean <keepdims = 0> (h, spatial) p = Reshape (m, pixel) n = Neg (p)
        r = Mul (h, n) y = {_TO_NCHW} (r)"""
    assert _check(_text(body), ["ReduceMean", "Reshape", "Neg", "Reshape", "Mul"]) == []


def test_flattening_for_a_linear_layer_reorders_its_weights() -> None:
    body = "f = Reshape (h, flat) y = Gemm <transB = 1> (f, W)"
    text = _text(body, "float[1,7] y", ", float[7,120] W")
    assert _check(text, ["Reshape", "Gemm"]) == []


def test_flattening_one_pixel_needs_no_other_weights() -> None:
    body = """m = ReduceMean <keepdims = 1> (h, spatial) f = Reshape (m, flat_4)
        y = Gemm <transB = 1> (f, W)"""
    text = _text(body, "float[1,7] y", ", float[7,4] W")
    assert _check(text, ["ReduceMean", "Reshape", "Gemm"]) == []


def test_a_reduction_that_leaves_axes_out_of_order_keeps_a_transpose() -> None:
    # NHWC without H is (N, W, C); what is computed is (N, C, W).
    body = "y = ReduceMean <keepdims = 0> (h, at_1)"
    assert _check(_text(body, "float[A,B,C] y"), ["ReduceMean", "Transpose"]) == []


def test_an_output_keeps_its_name_and_layout() -> None:
    assert _check(_text("y = Relu (h)"), ["Relu", "Transpose"]) == []


def test_a_computed_value_keeps_its_name() -> None:
    text = _text(f"r = Relu (h) c = {_TO_NCHW} (r) y = Neg (c)")
    model = parse(text)
    run_passes(model, [*_BEFORE, SinkTransposes(), EliminateIdentities(), RemoveUnused()])
    assert [o.name for node in model.graph for o in node.outputs] == ["r", "y"]


@pytest.mark.parametrize(
    ("body", "outputs", "reason"),
    [
        ("a = Reshape (x, nhwc) y = Add (h, a)", "float[A,B,C,D] y", "not transposed likewise"),
        ("y = Reshape (h, rows)", "float[A,B,C] y", "cuts across moved axes"),
        ("f = Reshape (h, flat) y = Neg (f)", "float[A,B] y", "linear layers alone"),
        ("y = Concat <axis = 0> (h, W)", "float[A,B,C,D] y", "an operand is a constant"),
    ],
)
def test_what_stands_in_the_way_is_told(body: str, outputs: str, reason: str) -> None:
    before = parse(_text(body, outputs, ", float[1,5,6,4] W" if "W)" in body else ""))
    after = before.clone()
    notes = run_passes(after, [*_BEFORE, SinkTransposes(), EliminateIdentities(), RemoveUnused()])
    assert "Transpose" in ops(after)
    assert_described(after)
    assert_same_numbers(before, after)
    found = reasons([n for n in notes if n.pass_name == "sink_transposes"])
    assert len(found) == 1
    assert reason in found[0]


def test_a_channel_shuffle_is_left_alone() -> None:
    text = """g (float[1,4,3,3] x) => (float[1,4,3,3] y)
        <int64[5] apart = {1, 2, 2, 3, 3}, int64[4] whole = {1, 4, 3, 3}> {
        a = Reshape (x, apart)
        b = Transpose <perm = [0, 2, 1, 3, 4]> (a)
        y = Reshape (b, whole) }"""
    left = ["Reshape", "Transpose", "Reshape"]
    assert _check(text, left) == ["the Reshape cuts across moved axes"]


def test_a_transpose_from_input_to_output_is_kept_by_both_names() -> None:
    text = f"""g (float[1,4,5,6] x) => (float[1,4,5,6] y) {{
        h = {_TO_NHWC} (x) y = {_TO_NCHW} (h) }}"""
    assert _check(text, ["Reshape"]) == []


@given(
    shape=st.lists(st.sampled_from([1, 2, 3]), min_size=2, max_size=5),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_whether_elements_move(shape: list[int], data: st.DataObject) -> None:
    perm = tuple(data.draw(st.permutations(range(len(shape)))))
    array = np.arange(np.prod(shape)).reshape(shape)
    moved = array.transpose(perm).reshape(-1)
    assert moves_elements(shape, perm) == (moved.tolist() != list(range(array.size)))


_UNARY = ("Relu", "Sigmoid", "Tanh", "Neg", "Abs")


@st.composite
def nhwc_networks(draw: st.DrawFn) -> str:
    """What an NHWC framework's exporter writes: every convolution between two transposes."""
    body, weights = [f"v0 = {_TO_NHWC} (x)"], []
    values = ["v0"]

    def put(text: str) -> None:
        values.append(f"v{len(values)}")
        body.append(f"{values[-1]} = {text}")

    for step in draw(st.lists(st.sampled_from("cuabpmg"), min_size=1, max_size=10)):
        last = values[-1]
        other = draw(st.sampled_from(values))
        if step == "c":
            weights.append(f"float[4,4,3,3] W{len(weights)}")
            put(f"{_TO_NCHW} ({last})")
            put(f"Conv <pads = [1,1,1,1]> ({values[-1]}, W{len(weights) - 1})")
            put(f"{draw(st.sampled_from(_UNARY))} ({values[-1]})")
            put(f"{_TO_NHWC} ({values[-1]})")
            values[-4:-1] = [values[-1]] * 3  # NCHW values are nobody else's
        elif step == "u":
            put(f"{draw(st.sampled_from(_UNARY))} ({last})")
        elif step == "a":
            put(f"Add ({last}, {other})")
        elif step == "b":
            weights.append(f"float[4] W{len(weights)}")
            put(f"{draw(st.sampled_from(['Add', 'Mul']))} ({last}, W{len(weights) - 1})")
        elif step == "p":
            put(f"Slice ({last}, at_0, at_5, at_1)")
        elif step == "m":
            put(f"Softmax <axis = 3> ({last})")
        else:
            put(f"ReduceMean <keepdims = 1> ({last}, spatial)")
            put(f"Mul ({last}, {values[-1]})")
            values[-2] = values[-1]  # of another shape
    body.append(f"y = {_TO_NCHW} ({values[-1]})")
    inputs = ", ".join(["float[1,4,5,6] x", *weights])
    constants = """int64[1] at_0 = {0}, int64[1] at_5 = {5}, int64[1] at_1 = {1},
        int64[2] spatial = {1, 2}"""
    return f"g ({inputs}) => (float[1,4,5,6] y) <{constants}> {{ {' '.join(body)} }}"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(network=nhwc_networks(), seed=st.integers(0, 1000))
def test_random_nhwc_networks_lose_every_transpose(network: str, seed: int) -> None:
    before = parse(network, seed=seed)
    after = before.clone()
    run_passes(after, [*_BEFORE, SinkTransposes(), EliminateIdentities(), RemoveUnused()])
    assert "Transpose" not in ops(after)
    assert_described(after)
    assert_same_numbers(before, after, tolerance=1e-5)
