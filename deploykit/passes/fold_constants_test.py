"""Constant folding and removal of what nothing reads."""

from __future__ import annotations

import onnx_ir as ir

from deploykit.graph.functions import add_function
from deploykit.graph.reading import constant_array
from deploykit.passes.fold_constants import FoldConstants
from deploykit.passes.remove_unused import RemoveUnused
from deploykit_testing.graphs import assert_same_numbers, ops, parse, reasons


def _fold(text: str) -> tuple[ir.Model, list[str]]:
    before = parse(text)
    after = before.clone()
    notes = FoldConstants().apply(after).notes
    RemoveUnused().apply(after)
    assert_same_numbers(before, after)
    return after, reasons(notes)


def test_the_default_bias_of_a_convolution() -> None:
    text = """g (float[1,2,4,4] x, float[3,2,1,1] W) => (float[1,3,4,4] y) {
        s = Shape <start = 0, end = 1> (W) z = Constant <value_float = 0.0> ()
        c = CastLike (z, x) b = Expand (c, s) y = Conv (x, W, b) }"""
    model, left = _fold(text)
    assert ops(model) == ["Conv"]
    assert left == []
    bias = constant_array(model.graph[0].inputs[2])
    assert bias is not None
    assert bias.tolist() == [0, 0, 0]
    assert model.graph[0].inputs[2].name == "b"


def test_every_form_of_constant() -> None:
    text = """g (float[2] x) => (float[2] y, float[2] z, float[2] u, int64[1] v) {
        a = Constant <value = float[2] {1, 2}> () b = Constant <value_floats = [1.0, 3.0]> ()
        c = Constant <value_float = 2.0> () d = Constant <value_int = 1> ()
        e = Constant <value_ints = [2]> () f = Cast <to = 1> (d) s = Shape (x) v = Sub (s, e)
        p = Add (x, a) y = Mul (p, b) z = Mul (x, c) u = Add (x, f) }"""
    model, _ = _fold(text)
    assert ops(model) == ["Sub", "Add", "Mul", "Mul", "Add"]


def test_the_shape_of_a_value_that_is_not_static() -> None:
    text = """g (float[N,2] x) => (float[A,B] y) { s = Shape (x) r = Reshape (x, s) y = Neg (r) }"""
    model = parse(text)
    notes = FoldConstants().apply(model).notes
    assert ops(model) == ["Shape", "Reshape", "Neg"]
    assert reasons(notes) == ["Shape is kept: the shape is not static"]


def test_a_large_expand_stays() -> None:
    text = """g (float[1000,1000] x) => (float[1000,1000] y) <float one = {1},
        int64[2] s = {1000, 1000}> { e = Expand (one, s) y = Mul (x, e) }"""
    model = parse(text)
    notes = FoldConstants().apply(model).notes
    assert ops(model) == ["Expand", "Mul"]
    assert reasons(notes) == ["Expand is kept: the result would have 1000000 elements"]


def test_an_output_of_the_graph_stays() -> None:
    text = """g (float[2] x) => (float[2] y, float[2] z) <float[2] a = {1, 2}> {
        y = Neg (x) z = Add (a, a) }"""
    model = parse(text)
    notes = FoldConstants().apply(model).notes
    assert ops(model) == ["Neg", "Add"]
    assert reasons(notes) == ["its inputs are constant, but it gives an output of the graph"]


def test_quantized_weights_are_not_folded() -> None:
    text = """g (float[2] x) => (float[2] y) <int8[2] q = {1, 2}, float s = {0.5}, int8 z = {0}> {
        w = DequantizeLinear (q, s, z) y = Mul (x, w) }"""
    model, _ = _fold(text)
    assert ops(model) == ["DequantizeLinear", "Mul"]


def test_an_initializer_that_is_an_input_too_is_a_constant() -> None:
    model = parse("g (float[2] x, float[2] W) => (float[2] y) { y = Add (x, W) }")
    model.graph.inputs.append(model.graph.initializers["W"])
    FoldConstants().apply(model)
    assert [v.name for v in model.graph.inputs] == ["x"]


def test_nothing_unread_is_left() -> None:
    text = """g (float[2] x, float[2] W, float[2] V) => (float[2] y) {
        a = Add (x, W) b = Neg (a) y = Abs (x) }"""
    model = parse(text)
    add_function(model, "Silu")
    result = RemoveUnused().apply(model)
    assert ops(model) == ["Abs"]
    assert not model.graph.initializers
    assert not model.functions
    assert list(model.opset_imports) == [""]
    assert [note.reason for note in result.notes] == [
        "Neg that nothing reads",
        "Add that nothing reads",
        "2 that nothing reads",
        "a function that no node calls",
    ]
    assert RemoveUnused().apply(model).changed is False


def test_what_is_random_is_not_constant() -> None:
    text = "g (float[2] x) => (float[2] y) { r = RandomNormal <shape = [2]> () y = Add (x, r) }"
    model = parse(text)
    FoldConstants().apply(model)
    assert ops(model) == ["RandomNormal", "Add"]
