"""Grouped pointwise convolutions on slices: when, and the same numbers."""

from __future__ import annotations

import pytest

from deploykit.graph.graph_fixtures_test import check
from deploykit.passes.split_grouped_convolutions import SplitGroupedConvolutions


def _text(read: int, made: int, group: int, *, bias: bool = True, kernel: int = 1) -> str:
    weights = f"float[{made},{read // group},{kernel},{kernel}] W, float[{made}] B"
    return f"""g (float[1,{read},6,6] x, {weights}) => (float[1,{made},H,V] y)
        {{ y = Conv <group = {group}> (x, W{", B" if bias else ""}) }}"""


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("group", [2, 3, 4])
def test_a_squeezing_one_is_split(group: int, bias: bool) -> None:
    expected = ["Slice", "Conv"] * group + ["Concat"]
    assert check(SplitGroupedConvolutions(), _text(24, 12, group, bias=bias), expected) == []


@pytest.mark.parametrize(
    ("text", "options", "why"),
    [
        (_text(12, 12, 3), {}, "the slices cost more"),
        (_text(24, 12, 3), {"max_pixels": 35}, "the slices cost more"),
        (_text(48, 24, 6), {}, "6 groups"),
        (_text(24, 12, 3, kernel=3), {}, "not pointwise"),
    ],
)
def test_reasons(text: str, options: dict[str, int], why: str) -> None:
    (reason,) = check(SplitGroupedConvolutions(**options), text, ["Conv"])
    assert why in reason


def test_depthwise_is_not_looked_at() -> None:
    assert check(SplitGroupedConvolutions(), _text(24, 24, 24), ["Conv"]) == []
