"""Activations written out in primitive ops: every form, every order, every reason."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.graph.ops import DOMAIN
from deploykit.passes.fuse_activations import TOLERANCE, FuseActivations
from deploykit_testing.graphs import apply, check, ops, parse, prepare

_CONSTANTS = {
    "zero": "0",
    "one": "1",
    "half": "0.5",
    "three": "3",
    "six": "6",
    "sixth": "0.16666667",
    "fifth": "0.2",
    "root": "1.4142135",
    "two": "2",
}
_DECLARED = ", ".join(f"float {name} = {{{value}}}" for name, value in _CONSTANTS.items())


def _text(body: str, outputs: str = "float[2,3,4,4] y") -> str:
    return f"g (float[2,3,4,4] x) => ({outputs}) <{_DECLARED}> {{ {body} }}"


@pytest.mark.parametrize(
    ("body", "op_type"),
    [
        ("y = Max (x, zero)", "Relu"),
        ("y = Max (zero, x)", "Relu"),
        ("r = Relu (x) y = Min (r, six)", "Clip"),
        ("r = Max (x, zero) y = Min (r, six)", "Clip"),
        ("r = Min (x, six) y = Max (r, zero)", "Clip"),
        ("r = Clip (x, zero, six) y = Min (r, three)", "Clip"),
        ("r = Clip (x, , six) y = Max (r, one)", "Clip"),
        ("a = Add (x, three) c = Clip (a, zero, six) y = Div (c, six)", "HardSigmoid"),
        ("a = Add (three, x) c = Clip (a, zero, six) y = Mul (sixth, c)", "HardSigmoid"),
        ("a = Add (x, three) r = Relu (a) c = Min (r, six) y = Div (c, six)", "HardSigmoid"),
        ("m = Div (x, six) a = Add (m, half) y = Clip (a, zero, one)", "HardSigmoid"),
        ("m = Mul (x, sixth) a = Add (m, half) r = Relu (a) y = Min (r, one)", "HardSigmoid"),
        ("h = HardSigmoid <alpha = 0.16666667> (x) y = Mul (h, x)", "HardSwish"),
        ("s = Sigmoid (x) y = Mul (x, s)", "Silu"),
        ("s = Sigmoid (x) y = Mul (s, x)", "Silu"),
        ("d = Div (x, root) e = Erf (d) a = Add (e, one) m = Mul (x, a) y = Mul (m, half)", "Gelu"),
        ("d = Div (x, root) e = Erf (d) a = Add (e, one) h = Div (x, two) y = Mul (h, a)", "Gelu"),
    ],
)
def test_forms(body: str, op_type: str) -> None:
    assert check(FuseActivations(), _text(body), [op_type]) == []


@pytest.mark.parametrize("order", list(permutations(["x", "c", "sixth"])))
@pytest.mark.parametrize("left_first", [True, False])
def test_hard_swish_in_every_order_of_multiplication(
    order: tuple[str, str, str], left_first: bool
) -> None:
    first, second, third = order
    product = (
        f"m = Mul ({first}, {second}) y = Mul (m, {third})"
        if left_first
        else f"m = Mul ({second}, {third}) y = Mul ({first}, m)"
    )
    text = _text(f"a = Add (x, three) c = Clip (a, zero, six) {product}")
    assert check(FuseActivations(), text, ["HardSwish"]) == []


def test_hard_swish_of_a_product() -> None:
    body = """z = Mul (x, w) a = Add (z, three) c = Clip (a, zero, six)
        m = Mul (z, c) y = Div (m, six)"""
    text = _text(body).replace("x) =>", "x, float[2,3,4,4] w) =>")
    assert check(FuseActivations(), text, ["Mul", "HardSwish"]) == []


def test_silu_of_a_product_of_three_values() -> None:
    body = "z = Mul (x, w) s = Sigmoid (z) y = Mul (z, s)"
    text = _text(body).replace("x) =>", "x, float[2,3,4,4] w) =>")
    assert check(FuseActivations(), text, ["Mul", "Silu"]) == []


@settings(max_examples=15, deadline=None)
@given(low=st.floats(-3, 3, width=16), high=st.floats(-3, 3, width=16), inner=st.booleans())
def test_two_bounds_in_either_order(low: float, high: float, inner: bool) -> None:
    first, second = ("Max (x, low)", "Min (r, high)")
    if inner:
        first, second = ("Min (x, high)", "Max (r, low)")
    text = f"""g (float[2,3] x) => (float[2,3] y) <float low = {{{low}}}, float high = {{{high}}}>
        {{ r = {first} y = {second} }}"""
    before = prepare(parse(text))
    expected = ["Clip"]
    if low >= high:
        expected = ["Relu" if first == "Max (x, low)" and low == 0 else first[:3], second[:3]]
        if inner and low == 0:
            expected = ["Min", "Max"]
    notes = check(FuseActivations(), text, expected)
    assert (notes == []) == (low < high)
    assert before is not None


@pytest.mark.parametrize(
    ("body", "left", "reason"),
    [
        (
            "a = Add (x, three) c = Clip (a, zero, six) y = Mul (c, fifth)",
            ["Add", "Clip", "Mul"],
            "no HardSigmoid: the factor of relu6(x + 3) is 0.2, not 1/6",
        ),
        (
            "a = Add (x, three) c = Clip (a, zero, six) m = Mul (x, c) y = Mul (m, fifth)",
            ["Add", "Clip", "Mul", "Mul"],
            "no HardSwish: the factor is 0.2, not 0.166667",
        ),
        (
            "m = Mul (x, fifth) a = Add (m, half) y = Clip (a, zero, one)",
            ["Mul", "Add", "Clip"],
            "clip(0.2 x + 0.5, 0, 1) is not the hard-sigmoid of 1/6 and 1/2",
        ),
        (
            "s = Sigmoid (x) m = Mul (x, s) y = Add (m, s)",
            ["Sigmoid", "Mul", "Add"],
            "no Silu: a value in between has 2 readers",
        ),
        (
            "s = Sigmoid (x) m = Mul (x, s) y = Mul (m, two)",
            ["Silu", "Mul"],
            "",
        ),
        (
            "r = Relu (x) m = Min (r, six) y = Add (m, r)",
            ["Relu", "Min", "Add"],
            "a value in between has 2 readers",
        ),
        (
            "r = Max (x, one) y = Max (r, two)",
            ["Max", "Max"],
            "two bounds on the same side",
        ),
    ],
)
def test_reasons(body: str, left: list[str], reason: str) -> None:
    assert check(FuseActivations(), _text(body), left) == ([reason] if reason else [])


@pytest.mark.parametrize(("factor", "fused"), [("0.16667", True), ("0.1667", False)])
def test_constants_match_within_the_stated_tolerance(factor: str, fused: bool) -> None:
    assert (abs(float(factor) * 6 - 1) <= TOLERANCE) == fused
    text = _text("a = Add (x, three) c = Clip (a, zero, six) m = Mul (x, c) y = Mul (m, sixth)")
    model = prepare(parse(text.replace("0.16666667", factor)))
    apply(FuseActivations(), model)
    assert ops(model) == (["HardSwish"] if fused else ["Add", "Clip", "Mul", "Mul"])


def test_a_gate_that_is_an_output_is_kept() -> None:
    text = _text("s = Sigmoid (x) y = Mul (x, s)", "float[2,3,4,4] s, float[2,3,4,4] y")
    assert check(FuseActivations(), text, ["Sigmoid", "Mul"]) == [
        "no Silu: a value in between is an output of the graph"
    ]


def test_a_gate_of_another_value_is_no_activation() -> None:
    body = "m = ReduceMean (x, axes) s = HardSigmoid <alpha = 0.16666667> (m) y = Mul (x, s)"
    text = _text(body).replace("<float zero", "<int64[2] axes = {2, 3}, float zero")
    assert check(FuseActivations(), text, ["ReduceMean", "HardSigmoid", "Mul"]) == []


def test_silu_is_a_function_of_ours_and_takes_the_last_name() -> None:
    model = prepare(parse(_text("s = Sigmoid (x) m = Mul (x, s) y = Relu (m)")))
    apply(FuseActivations(), model)
    assert ops(model) == ["Silu", "Relu"]
    assert model.graph[0].domain == DOMAIN
    assert model.graph[0].outputs[0].name == "m"
    assert (DOMAIN, "Silu", "") in model.functions
    assert model.opset_imports[DOMAIN] == 1
