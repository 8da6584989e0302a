"""Channel shuffles: any groups, any spelling, and what only looks like one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.graph.provenance import MODULE_KEY
from deploykit.graph.reading import read_int
from deploykit.passes.fuse_channel_shuffle import FuseChannelShuffle, shuffle_groups
from deploykit_testing.graphs import (
    apply,
    assert_described,
    assert_same_numbers,
    check,
    ops,
    parse,
    prepare,
)


def _dims(numbers: list[int]) -> tuple[str, str]:
    return f"int64[{len(numbers)}]", "{" + ", ".join(map(str, numbers)) + "}"


def _text(shape: list[int], middle: list[int], perm: list[int], last: list[int]) -> str:
    (m_type, m), (l_type, final) = _dims(middle), _dims(last)
    return f"""g (float{shape} x) => (float{last} y) <{m_type} m = {m}, {l_type} l = {final}> {{
        a = Reshape (x, m) b = Transpose <perm = {perm}> (a) y = Reshape (b, l) }}"""


@settings(max_examples=30, deadline=None)
@given(
    batch=st.integers(1, 3),
    groups=st.integers(2, 5),
    inner=st.integers(2, 5),
    height=st.integers(1, 4),
    width=st.integers(1, 4),
    spelling=st.sampled_from(["5-D", "flat", "no batch", "ones"]),
)
def test_every_spelling(
    batch: int, groups: int, inner: int, height: int, width: int, spelling: str
) -> None:
    shape = [batch, groups * inner, height, width]
    spellings = {
        "5-D": ([batch, groups, inner, height, width], [0, 2, 1, 3, 4]),
        "flat": ([batch, groups, inner, height * width], [0, 2, 1, 3]),
        "no batch": ([groups, inner, height * width], [1, 0, 2]),
        "ones": ([batch, 1, groups, inner, 1, height, width], [0, 1, 3, 2, 4, 5, 6]),
    }
    if spelling == "no batch" and batch > 1:
        return
    middle, perm = spellings[spelling]
    text = _text(shape, middle, perm, shape)
    assert check(FuseChannelShuffle(), text, ["ChannelShuffle"]) == []
    model = prepare(parse(text))
    apply(FuseChannelShuffle(), model)
    node = model.graph[0]
    assert read_int(node, "groups", 0) == groups
    assert node.outputs[0].name == "y"


def test_the_order_of_channels_is_that_of_the_definition() -> None:
    groups, inner = 3, 4
    labels = np.arange(groups * inner)
    shuffled = labels.reshape(groups, inner).T.reshape(-1)
    # y[:, i groups + g] = x[:, g C / groups + i]
    for g in range(groups):
        for i in range(inner):
            assert shuffled[i * groups + g] == g * inner + i


def test_another_shape_behind_the_shuffle_is_a_reshape() -> None:
    # Two halves side by side: (n C / 2, 2, pixels) by (1, 0, 2), then (2, n, C / 2, H, W).
    text = _text([1, 8, 3, 2], [4, 2, 6], [1, 0, 2], [2, 1, 4, 3, 2])
    assert check(FuseChannelShuffle(), text, ["ChannelShuffle", "Reshape"]) == []


def test_unshuffle_is_the_shuffle_of_the_other_groups() -> None:
    shape = [1, 12, 2, 2]
    assert shuffle_groups(tuple(shape), (1, 3, 4, 2, 2), (0, 2, 1, 3, 4)) == (3, "")
    assert shuffle_groups(tuple(shape), (1, 4, 3, 2, 2), (0, 2, 1, 3, 4)) == (4, "")


@pytest.mark.parametrize(
    ("shape", "middle", "perm", "last", "reason"),
    [
        (
            [1, 4, 3, 5],
            [1, 4, 3, 5],
            [0, 1, 3, 2],
            [1, 4, 5, 3],
            "no shuffle of the channels",
        ),
        ([2, 4, 3, 3], [4, 2, 9], [1, 0, 2], [2, 4, 3, 3], "moves the batch axis"),
        ([1, 4, 4, 2], [1, 2, 2, 4, 2], [0, 2, 1, 4, 3], [1, 4, 4, 2], "moves pixels too"),
        ([1, 4, 4, 2], [1, 8, 2, 2], [0, 2, 1, 3], [1, 4, 4, 2], "no shuffle of the channels"),
    ],
)
def test_other_permutations(
    shape: list[int], middle: list[int], perm: list[int], last: list[int], reason: str
) -> None:
    groups, why = shuffle_groups(tuple(shape), tuple(middle), tuple(perm))
    assert groups == 0
    assert reason in why
    if middle != shape and last == shape:
        text = _text(shape, middle, perm, last)
        left = check(FuseChannelShuffle(), text, ["Reshape", "Transpose", "Reshape"])
        assert left == [why]


def test_a_value_without_channels() -> None:
    text = _text([4, 6], [2, 2, 6], [1, 0, 2], [4, 6])
    assert check(FuseChannelShuffle(), text, ["Reshape", "Transpose", "Reshape"]) == [
        "a value of rank 2 has no NCHW channels"
    ]


def test_a_value_in_between_that_is_read() -> None:
    text = _text([1, 6, 2, 2], [1, 2, 3, 2, 2], [0, 2, 1, 3, 4], [1, 6, 2, 2])
    text = text.replace("(float[1, 6, 2, 2] y)", "(float[1, 6, 2, 2] y, float[1,3,2,2,2] b)")
    assert check(FuseChannelShuffle(), text, ["Reshape", "Transpose", "Reshape"]) == [
        "a value in between is an output of the graph"
    ]


def test_carries_the_module() -> None:
    model = prepare(parse(_text([1, 6, 2, 2], [1, 2, 3, 2, 2], [0, 2, 1, 3, 4], [1, 6, 2, 2])))
    for node in model.graph:
        node.metadata_props[MODULE_KEY] = "stage2.0"
    before = model.clone()
    apply(FuseChannelShuffle(), model)
    assert ops(model) == ["ChannelShuffle"]
    assert model.graph[0].metadata_props[MODULE_KEY] == "stage2.0"
    assert_described(model)
    assert_same_numbers(before, model)
