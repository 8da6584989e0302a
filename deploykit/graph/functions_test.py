"""The functions of ours: their numbers, in ONNX Runtime, for any shape."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.graph.functions import NAMES, add_function, make_function
from deploykit.graph.ops import CANONICAL_OPS, DOMAIN
from deploykit.tensors import Array
from deploykit_testing.graphs import parse, run

_HEADER = f'<ir_version: 9, opset_import: ["" : 20, "{DOMAIN}" : 1]>'


def _model(call: str, inputs: str, outputs: str, name: str) -> ir.Model:
    model = parse(f"g ({inputs}) => ({outputs}) {{ {call} }}", header=_HEADER)
    add_function(model, name)
    return model


def _shuffled(x: Array, groups: int) -> Array:
    n, c, h, w = x.shape
    return x.reshape(n, groups, c // groups, h, w).swapaxes(1, 2).reshape(x.shape)


@settings(max_examples=15, deadline=None)
@given(batch=st.integers(1, 3), groups=st.integers(1, 4), inner=st.integers(1, 4))
def test_channel_shuffle(batch: int, groups: int, inner: int) -> None:
    model = _model(
        f"y = {DOMAIN}.ChannelShuffle <groups = {groups}> (x)",
        "float[N,C,H,W] x",
        "float[N,C,H,W] y",
        "ChannelShuffle",
    )
    x = np.random.default_rng(0).standard_normal((batch, groups * inner, 3, 2)).astype(np.float32)
    np.testing.assert_array_equal(run(model, {"x": x})[0], _shuffled(x, groups))


@settings(max_examples=10, deadline=None)
@given(batch=st.integers(1, 2), groups=st.integers(1, 4), inner=st.integers(1, 3))
def test_concat_shuffle_split(batch: int, groups: int, inner: int) -> None:
    channels = groups * inner
    model = _model(
        f"u, v = {DOMAIN}.ConcatShuffleSplit <groups = {groups}> (a, b)",
        "float[N,C,H,W] a, float[N,C,H,W] b",
        "float[N,C,H,W] u, float[N,C,H,W] v",
        "ConcatShuffleSplit",
    )
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((batch, channels, 2, 3)).astype(np.float32) for _ in "ab")
    whole = _shuffled(np.concatenate([a, b], axis=1), groups)
    u, v = run(model, {"a": a, "b": b})
    np.testing.assert_array_equal(u, whole[:, :channels])
    np.testing.assert_array_equal(v, whole[:, channels:])


def test_silu() -> None:
    model = _model(f"y = {DOMAIN}.Silu (x)", "float[N] x", "float[N] y", "Silu")
    x = np.linspace(-8, 8, 33, dtype=np.float32)
    np.testing.assert_allclose(run(model, {"x": x})[0], x / (1 + np.exp(-x)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_every_function_is_canonical_and_valid(name: str) -> None:
    assert any(op.op_type == name and op.domain == DOMAIN for op in CANONICAL_OPS)
    function = make_function(name)
    assert function.identifier() == (DOMAIN, name, "")
    onnx.checker.check_function(
        ir.serde.serialize_function(function),
        _checker_context(),
    )


def _checker_context() -> onnx.checker.C.CheckerContext:
    context = onnx.checker.C.CheckerContext()
    context.ir_version = 9
    context.opset_imports = {"": 20}
    return context


def test_every_canonical_function_exists() -> None:
    assert {op.op_type for op in CANONICAL_OPS if op.domain == DOMAIN} == set(NAMES)


def test_a_function_is_added_once() -> None:
    model = parse("g (float[2] x) => (float[2] y) { y = Neg (x) }")
    add_function(model, "Silu")
    first = model.functions[(DOMAIN, "Silu", "")]
    add_function(model, "Silu")
    assert model.functions[(DOMAIN, "Silu", "")] is first
    with pytest.raises(KeyError):
        add_function(model, "NoSuchFunction")
