"""Activations behind a Concat: which move, and the same numbers."""

from __future__ import annotations

from deploykit.passes.hoist_activations import HoistActivations
from deploykit_testing.graphs import check

_HEAD = "g (float[1,4,5,5] x, float[6,4,1,1] W, float[2,4,1,1] V)"


def test_a_relu_moves_to_the_conv_and_vanishes_on_a_pooled_relu() -> None:
    text = f"""{_HEAD} => (float[1,10,5,5] y) {{
        r = Relu (x)
        p = AveragePool <kernel_shape = [3,3], pads = [1,1,1,1], count_include_pad = 1> (r)
        c = Conv (r, W) k = Concat <axis = 1> (p, c) y = Relu (k) }}"""
    assert check(HoistActivations(), text, ["Relu", "AveragePool", "Conv", "Relu", "Concat"]) == []


def test_each_operand_gets_its_own_clip() -> None:
    text = f"""{_HEAD} => (float[1,8,5,5] y) <float low = {{0}}, float high = {{6}}> {{
        c = Conv (x, W) d = Conv (x, V) k = Concat <axis = 1> (c, d) y = Clip (k, low, high) }}"""
    assert check(HoistActivations(), text, ["Conv", "Conv", "Clip", "Clip", "Concat"]) == []


def test_reasons() -> None:
    two_readers = f"""{_HEAD} => (float[1,8,5,5] y, float[1,6,5,5] z) {{
        c = Conv (x, W) d = Conv (x, V) k = Concat <axis = 1> (c, d) y = Relu (k) z = Neg (c) }}"""
    expected = ["Conv", "Conv", "Concat", "Relu", "Neg"]
    (reason,) = check(HoistActivations(), two_readers, expected)
    assert "readers that need it without" in reason
    fuses_nowhere = f"""{_HEAD} => (float[1,10,5,5] y) {{
        c = Conv (x, W) d = Neg (x) k = Concat <axis = 1> (c, d) y = Relu (k) }}"""
    (reason,) = check(HoistActivations(), fuses_nowhere, ["Conv", "Neg", "Concat", "Relu"])
    assert "no op that makes" in reason
    whole = f"""{_HEAD} => (float[1,8,5,5] y, float[1,8,5,5] k) {{
        c = Conv (x, W) d = Conv (x, V) k = Concat <axis = 1> (c, d) y = Relu (k) }}"""
    (reason,) = check(HoistActivations(), whole, ["Conv", "Conv", "Concat", "Relu"])
    assert "output of the graph" in reason
