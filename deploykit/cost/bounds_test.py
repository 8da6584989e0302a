"""The identities of the papers: our formulas, on graphs that are counted, obey them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.cost.bounds import (
    depthwise_separable_ratio,
    ghost_speed_up,
    grouped_mac_elements,
    pointwise_mac_bound,
    pointwise_mac_elements,
)
from deploykit.cost.count import count_graph
from deploykit.cost.layer import ElementSizes, StageCost
from deploykit.graph.functions import add_function
from deploykit_testing.static_graphs import parse_static

ELEMENTS = ElementSizes(1, 1, 1)  # so that bytes are elements, as in the papers
#: Channels, kernels and sizes that make the graphs small.
SIDES = st.integers(3, 9)
CHANNELS = st.integers(1, 12)


def _count(text: str) -> StageCost:
    return count_graph(parse_static(text), "test", ELEMENTS, absorb=True)


def _pointwise(side: int, c1: int, c2: int, groups: int = 1) -> StageCost:
    return _count(
        f"""g (float[1, {c1}, {side}, {side}] x, float[{c2}, {c1 // groups}, 1, 1] W)
            => (float[1, {c2}, {side}, {side}] y) {{ y = Conv <group = {groups}> (x, W) }}"""
    )


@settings(max_examples=20, deadline=None)
@given(SIDES, CHANNELS, CHANNELS, st.sampled_from([1, 3, 5]))
def test_depthwise_separable_over_standard(side: int, m: int, n: int, kernel: int) -> None:
    pad = kernel // 2
    shape, out = f"1, {m}, {side}, {side}", f"1, {n}, {side}, {side}"
    pads = f"pads = [{pad}, {pad}, {pad}, {pad}]"
    standard = _count(
        f"""g (float[{shape}] x, float[{n}, {m}, {kernel}, {kernel}] W) => (float[{out}] y) {{
            y = Conv <{pads}> (x, W) }}"""
    )
    separable = _count(
        f"""g (float[{shape}] x, float[{m}, 1, {kernel}, {kernel}] D, float[{n}, {m}, 1, 1] P)
            => (float[{out}] y) {{
            z = Conv <{pads}, group = {m}> (x, D)
            y = Conv (z, P) }}"""
    )
    ratio = depthwise_separable_ratio(n, kernel)
    assert ratio == pytest.approx(1 / n + 1 / kernel**2)
    assert separable.mult_adds / standard.mult_adds == pytest.approx(ratio)
    assert separable.flops / standard.flops == pytest.approx(ratio)
    parameters = [(m * kernel**2 if m * kernel**2 > 1 else 0) + (m * n if m * n > 1 else 0)]
    assert separable.parameters == parameters[0]
    if m > 1:
        assert separable.parameters / standard.parameters == pytest.approx(ratio)


@settings(max_examples=20, deadline=None)
@given(SIDES, st.integers(1, 4), st.integers(1, 4), st.sampled_from([2, 3, 4]))
def test_grouped_pointwise_costs_one_gth(side: int, a: int, b: int, groups: int) -> None:
    c1, c2 = 2 * a * groups, 2 * b * groups
    dense, grouped = _pointwise(side, c1, c2), _pointwise(side, c1, c2, groups)
    assert grouped.flops * groups == dense.flops
    assert grouped.mult_adds * groups == dense.mult_adds
    assert grouped.parameters * groups == dense.parameters
    assert grouped.mac_bytes == pointwise_mac_elements(side**2, c1, c2, groups)
    assert grouped.mac_bytes == pytest.approx(
        grouped_mac_elements(side**2, c1, grouped.mult_adds, groups)
    )


def test_a_shuffle_computes_nothing_and_moves_memory() -> None:
    text = """<ir_version: 9, opset_import: ["" : 20, "deploykit" : 1]>
        g (float[1, 6, 4, 4] x) => (float[1, 6, 4, 4] y) {
            y = deploykit.ChannelShuffle <groups = 3> (x) }"""
    model = parse_static(text, header="")
    add_function(model, "ChannelShuffle")
    cost = count_graph(model, "test", ElementSizes(), absorb=True)
    assert (cost.parameters, cost.mult_adds, cost.flops) == (0, 0, 0)
    assert cost.mac_bytes == 2 * 4 * 6 * 16


@settings(max_examples=40, deadline=None)
@given(SIDES, CHANNELS, CHANNELS)
def test_memory_access_of_a_pointwise_convolution_is_bounded(side: int, c1: int, c2: int) -> None:
    area, cost = side**2, _pointwise(side, c1, c2)
    assert cost.mult_adds == area * c1 * c2
    assert cost.mac_bytes == pointwise_mac_elements(area, c1, c2) == area * (c1 + c2) + c1 * c2
    bound = pointwise_mac_bound(area, cost.mult_adds)
    assert bound == pytest.approx(2 * math.sqrt(area * cost.mult_adds) + cost.mult_adds / area)
    if c1 == c2:
        assert cost.mac_bytes == pytest.approx(bound)
    else:
        assert cost.mac_bytes > bound


def test_more_groups_at_equal_mult_adds_cost_more_memory_access() -> None:
    # Table 2 of ShuffleNet V2 takes g = 1, 2, 4, 8 at the same FLOPs: c2 grows with g.
    costs = [_pointwise(8, 16, 16 * g, g) for g in (1, 2, 4, 8)]
    assert len({cost.mult_adds for cost in costs}) == 1
    access = [cost.mac_bytes for cost in costs]
    assert access == sorted(access)
    assert access[0] < access[-1]
    assert access == [grouped_mac_elements(64, 16, costs[0].mult_adds, g) for g in (1, 2, 4, 8)]


@pytest.mark.parametrize(
    ("c", "n", "s", "k", "d"),
    [(8, 12, 2, 3, 3), (16, 12, 3, 3, 3), (16, 8, 2, 1, 3), (6, 8, 4, 5, 3)],
)
def test_ghost_module(c: int, n: int, s: int, k: int, d: int) -> None:
    m, side = n // s, 7
    pads, cheap = (f"pads = [{p}, {p}, {p}, {p}]" for p in (k // 2, d // 2))
    full = _count(
        f"""g (float[1, {c}, {side}, {side}] x, float[{n}, {c}, {k}, {k}] W)
            => (float[1, {n}, {side}, {side}] y) {{ y = Conv <{pads}> (x, W) }}"""
    )
    ghost = _count(
        f"""g (float[1, {c}, {side}, {side}] x, float[{m}, {c}, {k}, {k}] W,
               float[{m * (s - 1)}, 1, {d}, {d}] D) => (float[1, {n}, {side}, {side}] y) {{
            z = Conv <{pads}> (x, W)
            cheap = Conv <{cheap}, group = {m}> (z, D)
            y = Concat <axis = 1> (z, cheap) }}"""
    )
    speed_up = ghost_speed_up(c, k, s, d)
    assert full.mult_adds / ghost.mult_adds == pytest.approx(speed_up)
    assert speed_up < s


def test_ghost_speed_up_is_near_the_ratio_where_channels_are_many() -> None:
    for ratio in (2, 3, 4):
        assert ghost_speed_up(1024, 3, ratio, 3) == pytest.approx(ratio, rel=0.01)
