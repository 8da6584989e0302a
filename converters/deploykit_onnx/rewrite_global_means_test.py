"""Means over height and width become GlobalAveragePool; other means stay, with the reason."""

from __future__ import annotations

import pytest

from deploykit_onnx.rewrite_global_means import RewriteGlobalMeans
from deploykit_testing.graphs import assert_same_numbers, ops, parse, reasons


def mean(shape: str, axes: str, keepdims: int, result: str) -> str:
    return (
        f"g (float[{shape}] x) => (float[{result}] y) <int64[2] axes = {{{axes}}}> "
        f"{{ y = ReduceMean <keepdims = {keepdims}> (x, axes) }}"
    )


@pytest.mark.parametrize(
    ("keepdims", "result", "expected"),
    [(1, "1, 4, 1, 1", ["GlobalAveragePool"]), (0, "1, 4", ["GlobalAveragePool", "Reshape"])],
)
def test_rewritten(keepdims: int, result: str, expected: list[str]) -> None:
    model = parse(mean("1, 4, 5, 3", "2, 3", keepdims, result))
    before = model.clone()
    RewriteGlobalMeans().apply(model)
    assert ops(model) == expected
    assert_same_numbers(before, model)


def test_other_axes_stay() -> None:
    model = parse(mean("1, 4, 5, 3", "1, 3", 1, "1, 1, 5, 1"))
    notes = RewriteGlobalMeans().apply(model).notes
    assert ops(model) == ["ReduceMean"]
    assert reasons(notes) == ["not a mean over height and width of NCHW"]
