"""Every value gets a static shape, or the model is refused with a name and advice."""

from __future__ import annotations

import pytest

from deploykit.errors import UnsupportedModelError
from deploykit.graph.reading import known_shape, static_shape
from deploykit.limits import Limits, limits_set
from deploykit.passes.infer_shapes import InferShapes
from deploykit_testing.graphs import parse


def test_infers_what_is_missing_once() -> None:
    text = """g (float[1,2,8,8] x, float[4,2,3,3] W) => (float[N,C,H,V] y) {
        c = Conv <strides = [2, 2]> (x, W) y = Relu (c) }"""
    model = parse(text)
    assert static_shape(model.graph[0].outputs[0]) is None
    notes = InferShapes().apply(model).notes
    assert [known_shape(n.outputs[0]) for n in model.graph] == [(1, 4, 3, 3), (1, 4, 3, 3)]
    assert len(notes) == 2
    assert InferShapes().apply(model).changed is False
    assert model.graph.initializers["W"].const_value is not None


def test_follows_shapes_that_are_computed() -> None:
    text = """g (float[2,3,4] x) => (float[A,B] y) <int64[1] m = {-1}> {
        s = Shape <start = 0, end = 1> (x) t = Concat <axis = 0> (s, m) y = Reshape (x, t) }"""
    model = parse(text)
    InferShapes().apply(model)
    assert known_shape(model.graph.outputs[0]) == (2, 12)


def test_a_dynamic_input_names_the_option() -> None:
    model = parse("g (float[N,3,8,8] x) => (float[N,3,8,8] y) { y = Relu (x) }")
    with pytest.raises(UnsupportedModelError, match="'x' of shape") as caught:
        InferShapes().apply(model)
    assert "--input" in str(caught.value)
    assert caught.value.exit_code == 3


def test_a_size_that_depends_on_the_data_names_the_op() -> None:
    model = parse("g (float[4] x) => (int64[1,N] y) { y = NonZero (x) }")
    with pytest.raises(UnsupportedModelError, match="made by NonZero"):
        InferShapes().apply(model)


def test_many_dynamic_values_are_counted() -> None:
    chain = " ".join(f"v{i + 1} = Relu (v{i})" for i in range(8))
    model = parse(f"g (float[N] v0) => (float[N] v8) {{ {chain} }}")
    with pytest.raises(UnsupportedModelError, match="and 4 more"):
        InferShapes().apply(model)


def test_contradicting_shapes_are_an_error() -> None:
    model = parse("g (float[2,3] x, float[4,5] W) => (float[A,B] y) { y = MatMul (x, W) }")
    with pytest.raises(UnsupportedModelError, match="contradict"):
        InferShapes().apply(model)


def test_values_of_gigabytes_are_refused_before_they_are_computed() -> None:
    text = """g (float[1,3,8,8] x) => (float[N,C,H,W] y) <int64[4] s = {1000, 3, 800, 800}> {
        big = Expand (x, s) y = Relu (big) }"""
    with pytest.raises(
        UnsupportedModelError, match=r"largest .*'big' of shape \(1000, 3, 800"
    ) as e:
        InferShapes().apply(parse(text.replace("8,8] x", "1,1] x")))
    assert "--max activation_bytes" in str(e.value)
    with limits_set(Limits(activation_bytes=64 << 30)):
        InferShapes().apply(parse(text.replace("8,8] x", "1,1] x")))
