"""Concat, shuffle, split: by Split and by Slice, and every reason."""

from __future__ import annotations

import pytest

from deploykit.passes.fuse_channel_shuffle import FuseChannelShuffle
from deploykit.passes.fuse_concat_shuffle_split import FuseConcatShuffleSplit
from deploykit_testing.graphs import apply, check, ops, parse, prepare
from deploykit_testing.graphs import assert_same_numbers as same

_SHUFFLE = "r = Reshape (c, m) t = Transpose <perm = [0, 2, 1, 3, 4]> (r) s = Reshape (t, l)"
_CONSTANTS = """int64[5] m = {1, 2, 4, 3, 3}, int64[4] l = {1, 8, 3, 3}, int64[2] halves = {4, 4},
    int64[2] uneven = {3, 5}, int64[1] zero = {0}, int64[1] four = {4}, int64[1] eight = {8},
    int64[1] one = {1}, int64 first = {0}"""
_SPLIT = "p, q = Split <axis = 1> (s, halves)"


def _text(body: str, inputs: str = "float[1,4,3,3] a, float[1,4,3,3] b", more: str = "") -> str:
    outputs = f"float[1,A,3,3] y, float[1,B,3,3] z{more}"
    return f"g ({inputs}) => ({outputs}) <{_CONSTANTS}> {{ {body} }}"


def _fuse(text: str, expected: list[str]) -> list[str]:
    before = prepare(parse(text))
    after = before.clone()
    apply(FuseChannelShuffle(), after)
    notes = apply(FuseConcatShuffleSplit(), after)
    assert ops(after) == expected
    same(before, after)
    return [note.reason for note in notes if not note.matched]


@pytest.mark.parametrize(
    "split",
    [
        _SPLIT,
        "p, q = Split <axis = 1, num_outputs = 2> (s)",
        "p = Slice (s, zero, four, one) q = Slice (s, four, eight, one)",
        "q = Slice (s, four, eight, one) p = Slice (s, zero, four, one)",
    ],
)
def test_halves(split: str) -> None:
    body = f"c = Concat <axis = 1> (a, b) {_SHUFFLE} {split} y = Relu (p) z = Sigmoid (q)"
    assert sorted(_ops_of(body)) == ["ConcatShuffleSplit", "Relu", "Sigmoid"]


def _ops_of(body: str) -> list[str]:
    before = prepare(parse(_text(body)))
    after = before.clone()
    apply(FuseChannelShuffle(), after)
    apply(FuseConcatShuffleSplit(), after)
    same(before, after)
    assert [o.name for o in after.graph[0].outputs] == ["p", "q"]
    return ops(after)


def test_only_one_half_is_read() -> None:
    body = f"c = Concat <axis = 1> (a, b) {_SHUFFLE} q = Slice (s, four, eight, one)"
    body += " y = Relu (q) z = Sigmoid (q)"
    assert _fuse(_text(body), ["ConcatShuffleSplit", "Relu", "Sigmoid"]) == []


@pytest.mark.parametrize(
    ("body", "inputs", "left", "reason"),
    [
        (
            f"c = Relu (a) {_SHUFFLE} {_SPLIT} y = Relu (p) z = Relu (q)",
            "float[1,8,3,3] a",
            ["Relu", "ChannelShuffle", "Split", "Relu", "Relu"],
            "there is no Concat before it",
        ),
        (
            f"c = Concat <axis = 1> (a, b, b) {_SHUFFLE} {_SPLIT} y = Relu (p) z = Relu (q)",
            "float[1,4,3,3] a, float[1,2,3,3] b",
            ["Concat", "ChannelShuffle", "Split", "Relu", "Relu"],
            "the Concat before it has 3 operands, not 2 along the channels",
        ),
        (
            f"c = Concat <axis = 1> (a, b) {_SHUFFLE} {_SPLIT} y = Relu (p) z = Relu (q)",
            "float[1,3,3,3] a, float[1,5,3,3] b",
            ["Concat", "ChannelShuffle", "Split", "Relu", "Relu"],
            "the operands of the Concat before it have 3 and 5 channels",
        ),
        (
            f"""c = Concat <axis = 1> (a, b) {_SHUFFLE} p, q = Split <axis = 1> (s, uneven)
            y = Relu (p) z = Relu (q)""",
            "float[1,4,3,3] a, float[1,4,3,3] b",
            ["Concat", "ChannelShuffle", "Split", "Relu", "Relu"],
            "channels 0 to 3 of 8 are no half",
        ),
        (
            f"c = Concat <axis = 1> (a, b) {_SHUFFLE} y = Relu (s) z = Sigmoid (s)",
            "float[1,4,3,3] a, float[1,4,3,3] b",
            ["Concat", "ChannelShuffle", "Relu", "Sigmoid"],
            "Relu reads it as a whole",
        ),
        (
            f"c = Concat <axis = 1> (a, b) {_SHUFFLE} {_SPLIT} y = Add (p, q) z = Relu (c)",
            "float[1,4,3,3] a, float[1,4,3,3] b",
            ["Concat", "ChannelShuffle", "Split", "Add", "Relu"],
            "a value in between has 2 readers",
        ),
    ],
)
def test_reasons(body: str, inputs: str, left: list[str], reason: str) -> None:
    assert _fuse(_text(body, inputs), left) == [reason]


def test_an_output_in_between() -> None:
    body = f"c = Concat <axis = 1> (a, b) {_SHUFFLE} {_SPLIT} y = Relu (p) z = Relu (q)"
    text = _text(body, more=", float[1,8,3,3] s")
    left = ["Concat", "ChannelShuffle", "Split", "Relu", "Relu"]
    assert _fuse(text, left) == ["it gives an output of the graph"]


def test_nothing_without_a_shuffle() -> None:
    body = "c = Concat <axis = 1> (a, b) p, q = Split <axis = 1> (c, halves) "
    body += "y = Relu (p) z = Relu (q)"
    text = _text(body)
    assert check(FuseConcatShuffleSplit(), text, ["Concat", "Split", "Relu", "Relu"]) == []
