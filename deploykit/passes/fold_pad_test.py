"""Pad into the op behind it, and every reason why not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.passes.fold_pad import FoldPad
from deploykit_testing.graphs import check


def _text(
    body: str,
    pads: str = "0,0,1,1,0,0,1,1",
    value: str = "0",
    outputs: str = "float[N,C,H,V] y",
    mode: str = "constant",
) -> str:
    return f"""g (float[1,2,6,6] x, float[3,2,3,3] W, float[3,2,3,3] K) => ({outputs})
        <int64[8] pads = {{{pads}}}, float value = {{{value}}}> {{
        p = Pad <mode = "{mode}"> (x, pads, value) {body} }}"""


@settings(max_examples=20, deadline=None)
@given(
    pads=st.lists(st.integers(0, 2), min_size=4, max_size=4),
    own=st.lists(st.integers(0, 1), min_size=4, max_size=4),
    stride=st.integers(1, 2),
)
def test_zeros_into_conv(pads: list[int], own: list[int], stride: int) -> None:
    if not any(pads):
        return  # such a Pad is an identity, which is gone before
    top, left, bottom, right = pads
    body = f"y = Conv <strides = [{stride}, {stride}], pads = {own}> (p, W)"
    text = _text(body, f"0,0,{top},{left},0,0,{bottom},{right}")
    assert check(FoldPad(), text, ["Conv"]) == []


def test_zeros_into_average_pool() -> None:
    body = "y = AveragePool <kernel_shape = [3, 3], strides = [2, 2], count_include_pad = {}> (p)"
    for counted in (0, 1):
        assert check(FoldPad(), _text(body.replace("{}", str(counted))), ["AveragePool"]) == []


def test_minus_infinity_into_max_pool() -> None:
    body = "y = MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [0, 0, 1, 1]> (p)"
    for value in ("-3.4028234663852886e38",):
        assert check(FoldPad(), _text(body, "0,0,1,1,0,0,0,0", value), ["MaxPool"]) == []


def test_each_reader_by_itself() -> None:
    body = "a = Conv (p, W) b = Conv (p, K) y = Add (a, b)"
    assert check(FoldPad(), _text(body), ["Conv", "Conv", "Add"]) == []
    body = "a = Conv (p, W) y = Relu (a) z = Relu (p)"
    outputs = "float[N,C,H,V] y, float[N,C,H,V] z"
    left = check(FoldPad(), _text(body, outputs=outputs), ["Pad", "Conv", "Relu", "Relu"])
    assert left == ["Relu reads it, which has no pads"]


@pytest.mark.parametrize(
    ("text", "left", "reason"),
    [
        (_text("y = Conv (p, W)", value="1"), "Conv", "it pads with 1.0, and Conv with 0"),
        (
            _text("y = MaxPool <kernel_shape = [3, 3]> (p)"),
            "MaxPool",
            "it pads with 0.0, and MaxPool with -inf",
        ),
        (_text("y = Conv (p, W)", mode="reflect"), "Conv", "it pads with mode reflect"),
        (_text("y = Conv (p, W)", "0,0,-1,1,0,0,1,1"), "Conv", "a negative pad crops"),
        (
            _text("y = Relu (p)", "0,1,1,1,0,0,1,1"),
            "Relu",
            "it pads the batch or channel axis",
        ),
        (
            _text("y = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (p)"),
            "AveragePool",
            "AveragePool has pads of its own that it does not count",
        ),
        (
            _text("y = AveragePool <kernel_shape = [2, 2]> (p)", "0,0,2,2,0,0,2,2"),
            "AveragePool",
            "the pads would reach the window of AveragePool",
        ),
        (
            _text(
                "y = AveragePool <kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1,"
                " count_include_pad = 1> (p)",
                "0,0,1,1,0,0,1,1",
            ),
            "AveragePool",
            "AveragePool rounds its size up",
        ),
    ],
)
def test_reasons(text: str, left: str, reason: str) -> None:
    assert check(FoldPad(), text, ["Pad", left]) == [reason]


def test_a_pad_that_is_no_feature_map() -> None:
    text = """g (float[3,4] x) => (float[4,4] y) <int64[4] pads = {0,0,1,0}> {
        p = Pad (x, pads) y = Relu (p) }"""
    assert check(FoldPad(), text, ["Pad", "Relu"]) == [
        "it pads a value of rank 2, not a feature map"
    ]
