"""Identities of every kind go; what only looks like one stays."""

from __future__ import annotations

import pytest

from deploykit.passes.base import run_passes
from deploykit.passes.canonicalize import Canonicalize
from deploykit.passes.eliminate_identities import EliminateIdentities
from deploykit.passes.fold_constants import FoldConstants
from deploykit.passes.infer_shapes import InferShapes
from deploykit.passes.inline_functions import InlineFunctions
from deploykit_testing.graphs import (
    assert_described,
    assert_same_numbers,
    ops,
    parse,
    prepare,
    reasons,
)

_CONSTANTS = """int64[3] same = {2, 3, 4}, int64[3] flat = {1, 6, 4}, int64[6] none = {0,0,0,0,0,0},
    int64[6] some = {0,0,1,0,0,0}, int64[1] zero_at = {0}, int64[1] far = {9},
    int64[1] one_at = {1}, float zero = {0}, float[3,1] ones = {1, 1, 1}, float one = {1},
    float two = {2}, float[2,1,1,1] wide = {1, 1}, bool yes = {1}, bool no = {0},
    float half = {0.5}, int64[1] back = {-1}, int64[1] low = {-9}"""


def _text(body: str, outputs: str = "float[A,B,C] y") -> str:
    return f"g (float[2,3,4] x) => ({outputs}) <{_CONSTANTS}> {{ {body} }}"


def _check(text: str, expected: list[str]) -> list[str]:
    before = parse(text)
    after = prepare(before)
    assert ops(after) == expected
    assert_described(after)
    assert_same_numbers(before, after)
    assert [v.name for v in after.graph.outputs] == [v.name for v in before.graph.outputs]
    model = before.clone()
    passes = [InlineFunctions(), FoldConstants(), InferShapes(), Canonicalize()]
    notes = run_passes(model, [*passes, EliminateIdentities()])
    return reasons([n for n in notes if n.pass_name == "eliminate_identities"])


@pytest.mark.parametrize(
    "identity",
    [
        "Identity (a)",
        "Dropout (a)",
        "Dropout (a, half, no)",
        "Cast <to = 1> (a)",
        "Reshape (a, same)",
        "Expand (a, same)",
        "Transpose <perm = [0, 1, 2]> (a)",
        "Pad (a, none)",
        "Slice (a, zero_at, far)",
        "Concat <axis = 1> (a)",
        "Split <axis = 1, num_outputs = 1> (a)",
        "Add (a, zero)",
        "Sub (a, zero)",
        "Mul (ones, a)",
        "Div (a, one)",
        "Clip (a)",
        "Sum (a)",
    ],
)
def test_in_the_middle_and_at_the_output(identity: str) -> None:
    assert _check(_text(f"a = Neg (x) b = {identity} y = Abs (b)"), ["Neg", "Abs"]) == []
    assert _check(_text(f"a = Neg (x) y = {identity}"), ["Neg"]) == []


@pytest.mark.parametrize(
    ("node", "op_type"),
    [
        ("Reshape (a, flat)", "Reshape"),
        ("Transpose <perm = [0, 2, 1]> (a)", "Transpose"),
        ("Pad (a, some)", "Pad"),
        ("Slice (a, one_at, far)", "Slice"),
        ("Slice (a, far, low, one_at, back)", "Slice"),
        ("Add (a, two)", "Add"),
        ("Mul (a, two)", "Mul"),
        ("Concat <axis = 1> (a, a)", "Concat"),
    ],
)
def test_what_changes_something_stays(node: str, op_type: str) -> None:
    assert _check(_text(f"a = Neg (x) y = {node}"), ["Neg", op_type]) == []


def test_a_neutral_operand_that_broadcasts_stays() -> None:
    assert _check(_text("y = Mul (x, wide)", "float[A,B,C,D] y"), ["Mul"]) == []


def test_pools_and_resize() -> None:
    text = """g (float[1,2,4,4] x) => (float[1,2,4,4] y) <int64[4] z = {1, 2, 4, 4}> {
        a = Neg (x) p = MaxPool <kernel_shape = [1, 1]> (a) q = AveragePool <kernel_shape = [1, 1]>
        (p) r = Resize <mode = "linear"> (q, , , z) y = Abs (r) }"""
    assert _check(text, ["Neg", "Abs"]) == []


def test_pairs() -> None:
    body = "a = Reshape (x, flat) y = Reshape (a, same)"
    assert _check(_text(f"{body.replace('y =', 'b =')} y = Neg (b)"), ["Neg"]) == []
    body = "a = Transpose <perm = [1, 2, 0]> (x) y = Transpose <perm = [1, 0, 2]> (a)"
    assert _check(_text(body), ["Transpose"]) == []
    body = "a = Transpose <perm = [1, 2, 0]> (x) b = Transpose <perm = [2, 0, 1]> (a) y = Neg (b)"
    assert _check(_text(body), ["Neg"]) == []
    assert _check(_text("a = Relu (x) y = Relu (a)"), ["Relu"]) == []
    assert _check(_text("a = Relu (x) y = Clip (a, zero, two)"), ["Clip"]) == []


def test_a_pair_whose_inner_value_is_read() -> None:
    body = "a = Reshape (x, flat) b = Reshape (a, same) n = Neg (b) y = Abs (n) z = Abs (a)"
    text = _text(body, "float[A,B,C] y, float[D,E,F] z")
    assert _check(text, ["Reshape", "Neg", "Abs", "Abs"]) == []


def test_between_input_and_output() -> None:
    text = _text("y = Identity (x)")
    before = parse(text)
    after = prepare(before)
    assert ops(after) == ["Reshape"]
    assert_same_numbers(before, after)
    assert _check(_text("y = Reshape (x, same)"), ["Reshape"]) == [
        "Reshape to the same shape is kept: both its input and its output have to keep their names"
    ]


def test_between_two_outputs() -> None:
    text = _text("y = Neg (x) z = Identity (y)", "float[A,B,C] y, float[D,E,F] z")
    before = parse(text)
    after = prepare(before)
    assert ops(after) == ["Neg", "Reshape"]
    assert_same_numbers(before, after)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("a = Neg (x) y = Dropout (a, half, yes)", "Dropout in training mode"),
        ("a = Neg (x) y, z = Dropout (a)", "the mask of Dropout is read"),
        ("a = Cast <to = 10> (x) y = Cast <to = 1> (a)", "Cast from FLOAT to FLOAT16"),
    ],
)
def test_reasons(body: str, reason: str) -> None:
    outputs = "float[A,B,C] y, bool[D,E,F] z" if "z" in body.split("=")[1] else "float[A,B,C] y"
    if "z" in outputs:
        body = body.replace("y, z =", "y, m =") + " z = Not (m)"
    model = parse(_text(body, outputs))
    passes = [InlineFunctions(), FoldConstants(), InferShapes(), Canonicalize()]
    notes = run_passes(model, [*passes, EliminateIdentities()])
    found = reasons([n for n in notes if n.pass_name == "eliminate_identities"])
    assert reason in found


def _gathered(indices: str, shape: str, axis: int = 0) -> str:
    return f"""g (float[1,4,1,1] x) => (float[A,B,C,D] y)
    <int64[1] flat = {{4}}, int64[{shape}] i = {{{indices}}}>
    {{ a = Neg (x) v = Reshape (a, flat) b = Gather <axis = {axis}> (v, i) y = Abs (b) }}"""


def test_a_gather_of_every_element_in_order_is_a_reshape() -> None:
    assert _check(_gathered("0, 1, 2, 3", "1,4,1,1"), ["Neg", "Abs"]) == []
    assert _check(_gathered("0, 1, 2, 3", "1,1,2,2"), ["Neg", "Reshape", "Abs"]) == []


@pytest.mark.parametrize("indices", ["0, 1, 3, 2", "0, 1, 2, 2", "1, 2, 3, 0"])
def test_any_other_gather_stays(indices: str) -> None:
    kept = ["Neg", "Reshape", "Gather", "Abs"]
    assert _check(_gathered(indices, "1,4,1,1"), kept) == []
