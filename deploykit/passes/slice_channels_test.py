"""Slices of whole channels behind a Reshape, what becomes of them, and every reason."""

from __future__ import annotations

import pytest

from deploykit.passes.fuse_channel_shuffle import FuseChannelShuffle
from deploykit.passes.fuse_concat_shuffle_split import FuseConcatShuffleSplit
from deploykit.passes.remove_unused import RemoveUnused
from deploykit.passes.slice_channels import SliceChannels
from deploykit_testing.graphs import apply, ops, parse, prepare
from deploykit_testing.graphs import assert_same_numbers as same

_CONSTANTS = """int64[5] pair = {2, 1, 4, 3, 3}, int64[5] inner = {1, 2, 4, 3, 3},
    int64[3] matrix = {4, 2, 9}, int64[4] half = {1, 4, 3, 3}, int64[3] flat = {1, 1, 72},
    int64[2] vector = {1, 36}, int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2},
    int64[1] four = {4}, int64[1] size = {40}, int64[2] zeros = {0, 0}, int64[2] ones = {1, 1},
    int64[2] both = {0, 1}"""


def _text(body: str, inputs: str = "float[1,8,3,3] x") -> str:
    return f"g ({inputs}) => (float[A,B,C,D] y) <{_CONSTANTS}> {{ {body} }}"


def _apply(text: str, *more: object) -> tuple[list[str], list[str]]:
    before = prepare(parse(text))
    after = before.clone()
    reasons = []
    for one in (*more, SliceChannels(), FuseConcatShuffleSplit(), RemoveUnused()):
        notes = apply(one, after)  # type: ignore[arg-type]
        if isinstance(one, SliceChannels):
            reasons = [note.reason for note in notes]
    same(before, after)
    return ops(after), reasons


@pytest.mark.parametrize("shape", ["pair", "inner"])
def test_halves_of_the_channels(shape: str) -> None:
    axis = {"pair": "zero", "inner": "one"}[shape]
    body = (
        f"r = Reshape (x, {shape}) a = Slice (r, zero, one, {axis}, one) p = Reshape (a, half) "
        f"b = Slice (r, one, two, {axis}, one) q = Reshape (b, half) s = Relu (q) y = Sub (s, p)"
    )
    found, reasons = _apply(_text(body))
    assert sorted(found) == ["Relu", "Slice", "Slice", "Sub"]
    assert reasons == [
        "Reshape, Slice, Reshape > Slice of channels 0 to 4",
        "Reshape, Slice, Reshape > Slice of channels 4 to 8",
    ]


def test_a_part_that_two_maps_read() -> None:
    body = (
        "r = Reshape (x, pair) a = Slice (r, zero, one, zero, one) p = Reshape (a, half) "
        "q = Reshape (a, half) s = Relu (q) y = Sub (s, p)"
    )
    assert sorted(_apply(_text(body))[0]) == ["Relu", "Slice", "Slice", "Sub"]


def test_a_shuffle_by_way_of_the_batch_is_concat_shuffle_split() -> None:
    # reshape(c / 2, 2, h w), transpose, reshape(2, 1, c / 2, h, w), then the two halves
    body = (
        "c = Concat <axis = 1> (k, l) m = Reshape (c, matrix) t = Transpose <perm = [1, 0, 2]> (m) "
        "r = Reshape (t, pair) a = Slice (r, zero, one, zero, one) p = Reshape (a, half) "
        "b = Slice (r, one, two, zero, one) q = Reshape (b, half) s = Relu (q) y = Sub (s, p)"
    )
    text = _text(body, "float[1,4,3,3] k, float[1,4,3,3] l")
    found, _ = _apply(text, FuseChannelShuffle())
    assert found == ["ConcatShuffleSplit", "Relu", "Sub"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            "r = Reshape (x, pair) a = Slice (r, zeros, ones, both, ones) y = Reshape (a, half)",
            "it has steps, or several axes",
        ),
        (
            "r = Reshape (x, pair) a = Slice (r, zero, two, zero, two) y = Reshape (a, half)",
            "it has steps, or several axes",
        ),
        (
            "r = Reshape (x, pair) a = Slice (r, zero, two, two, one) y = Reshape (a, half)",
            "axes before axis 2 of [2, 1, 4, 3, 3] are longer than 1",
        ),
        (
            "r = Reshape (x, flat) a = Slice (r, four, size, two, one) y = Reshape (a, half)",
            "elements 4 to 40 are no whole channels of [1, 8, 3, 3]",
        ),
        (
            (
                "r = Reshape (x, pair) a = Slice (r, zero, one, zero, one) "
                "v = Reshape (a, vector) w = Relu (v) y = Reshape (w, half)"
            ),
            "the part is read otherwise than as a map of shape (1, 4, 3, 3)",
        ),
    ],
)
def test_reasons(body: str, reason: str) -> None:
    found, reasons = _apply(_text(body))
    assert "Slice" in found
    assert "Reshape" in found
    assert reasons == [reason]
