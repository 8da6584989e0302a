"""Divisors, roots and exponents that a step would ruin stay float; safe ones are left alone."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.passes.base import Findings
from deploykit_quantize.float_islands import find_float_islands
from deploykit_quantize.quantizer import quantize_model
from deploykit_testing.quantized import (
    POLICY,
    calibrate,
    fused,
    run_values,
    samples_of,
    snr_db,
)


def islands_of(body: str, ranges: dict[str, tuple[float, float]]) -> tuple[list[str], list[str]]:
    """Names of the first outputs of nodes that stay float; what the notes say."""
    model = fused(
        "agraph (float[1, 4, 8, 8] x, float[4, 4, 1, 1] W, float[4, 4, 1, 1] V) "
        f"=> (float[1, 4, 8, 8] y) <float e = {{0.001}}, float two = {{2.0}}> {{{body}}}"
    )
    findings = Findings("islands")

    def range_of(value: ir.Value) -> tuple[float, float]:
        return ranges.get(value.name or "", (-1.0, 1.0))

    found = find_float_islands(model.graph.graph, POLICY, range_of, findings)
    names = [n.outputs[0].name or "" for n in model.graph.graph if n in found]
    return names, [note.reason for note in findings.notes]


def test_a_divisor_near_zero_takes_what_computes_it_along_up_to_the_layer() -> None:
    body = "a = Conv(x, W) b = Conv(x, V) bb = Mul(b, b) d = Add(bb, e) y = Div(a, d)"
    names, notes = islands_of(body, {"d": (0.001, 4.0)})
    assert names == ["bb", "d", "y"]
    assert notes == ["computed in float: its operand lies in 0.001..4, where a step is 0.0157"]


def test_a_layer_whose_result_is_the_divisor_stays_float_too() -> None:
    body = "a = Conv(x, W) b = Conv(x, V) r = Relu(b) d = Add(r, e) y = Div(a, d)"
    assert islands_of(body, {"d": (0.001, 4.0)})[0] == ["b", "r", "d", "y"]


def test_a_divisor_away_from_zero_is_left_alone() -> None:
    body = "a = Conv(x, W) b = Conv(x, V) bb = Mul(b, b) d = Add(bb, two) y = Div(a, d)"
    assert islands_of(body, {"d": (2.0, 4.0)}) == ([], [])
    assert islands_of(body, {"d": (-4.0, -2.0)}) == ([], [])
    assert islands_of(body, {"d": (-4.0, 2.0)})[0] == ["bb", "d", "y"]


@pytest.mark.parametrize(
    ("op", "interval", "floats"),
    [
        ("y = Sqrt(b)", (0.0, 1.0), ["b", "y"]),
        ("y = Sqrt(b)", (0.5, 1.0), []),
        ("y = Exp(b)", (-30.0, 3.0), ["b", "y"]),
        ("y = Exp(b)", (-3.0, 3.0), []),
        ("y = Pow(b, e)", (0.0, 3.0), ["b", "y"]),
        ("y = Pow(b, two)", (0.0, 3.0), []),
    ],
)
def test_each_op_has_its_own_danger(
    op: str, interval: tuple[float, float], floats: list[str]
) -> None:
    assert islands_of(f"b = Conv(x, W) {op}", {"b": interval})[0] == floats


def test_a_normalization_written_out_is_float_as_a_whole() -> None:
    body = """c = Conv(x, W) m = ReduceMean(c, axes) s = Sub(c, m) q = Mul(s, s)
    v = ReduceMean(q, axes) d = Add(v, e) r = Sqrt(d) y = Div(s, r)"""
    model = fused(
        "agraph (float[1, 4, 8, 8] x, float[4, 4, 1, 1] W) => (float[1, 4, 8, 8] y) "
        f"<float e = {{0.00001}}, int64[1] axes = {{1}}> {{{body}}}"
    )
    result = quantize_model(model, POLICY, calibrate(model))
    feeds = [{"x": s[None]} for s in samples_of(model)]
    floats = np.stack([run_values(model.graph, feed)["y"] for feed in feeds])
    rounded = np.stack([run_values(result.graph, feed)["y"] for feed in feeds])
    assert snr_db(floats, rounded) > 30
    made = {n.inputs[0].name for n in result.graph.graph if n.op_type == "QuantizeLinear"}  # type: ignore[union-attr]
    assert {"c", "x"} <= made
    assert not made & {"m", "q", "v", "d", "r"}


@settings(max_examples=25, deadline=None)
@given(
    floor=st.sampled_from([1e-6, 1e-4, 1e-2, 0.1, 1.0, 10.0]),
    sign=st.sampled_from([1.0, -1.0]),
    seed=st.integers(0, 50),
)
def test_no_divisor_gives_a_result_that_is_not_finite(floor: float, sign: float, seed: int) -> None:
    model = fused(
        "agraph (float[1, 4, 8, 8] x, float[4, 4, 1, 1] W, float[4, 4, 1, 1] V)"
        f" => (float[1, 4, 8, 8] y) <float e = {{{floor}}}, float s = {{{sign}}}> {{"
        "a = Conv(x, W) b = Conv(x, V) r = Relu(b) f = Add(r, e) d = Mul(f, s) y = Div(a, d)}",
        seed=seed,
    )
    result = quantize_model(model, POLICY, calibrate(model))
    feeds = [{"x": s[None]} for s in samples_of(model)]
    floats = np.stack([run_values(model.graph, feed)["y"] for feed in feeds])
    rounded = np.stack([run_values(result.graph, feed)["y"] for feed in feeds])
    assert np.isfinite(rounded).all()
    assert snr_db(floats, rounded) > 12


def test_a_normalization_is_float_with_its_affine_and_ends_at_the_residual() -> None:
    body = """a = Conv(x, W) b = Conv(x, V) s = Add(a, b) m = ReduceMean(s, axes) c = Sub(s, m)
    q = Mul(c, c) v = ReduceMean(q, axes) d = Add(v, e) r = Sqrt(d) n = Div(c, r)
    f = Mul(n, two) g = Add(f, e) w = Conv(g, W) y = Add(s, w)"""
    text = (
        "agraph (float[1, 4, 8, 8] x, float[4, 4, 1, 1] W, float[4, 4, 1, 1] V) "
        "=> (float[1, 4, 8, 8] y) "
        f"<float e = {{0.001}}, float two = {{2.0}}, int64[1] axes = {{1}}> {{{body}}}"
    )
    model = fused(text)
    found = find_float_islands(model.graph.graph, POLICY, lambda _: (1.0, 2.0))
    names = [n.outputs[0].name for n in model.graph.graph if n in found]
    assert names == ["m", "c", "q", "v", "d", "r", "n", "f", "g"]
