"""Shuffles absorbed by weights: the same numbers in ONNX Runtime, and nothing but slices left."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploykit.graph.channel_order import channel_order, channel_orders
from deploykit.model import PassNote, Stage
from deploykit.passes.absorb_channel_permutations import AbsorbChannelPermutations
from deploykit.passes.pipeline import advance
from deploykit.passes.remove_unused import RemoveUnused
from deploykit_testing.graphs import (
    as_model,
    assert_described,
    assert_same_numbers,
    ops,
    parse,
    random_feeds,
    run,
)


@dataclass
class Graph:
    """ONNX text of a network on (1, 4, 5, 5) images, whose values all keep their size."""

    body: list[str] = field(default_factory=list)
    weights: list[str] = field(default_factory=list)
    channels: dict[str, int] = field(default_factory=lambda: {"x": 4})
    size: int = 5

    def put(self, channels: int, expression: str) -> str:
        name = f"v{len(self.body)}"
        self.body.append(f"{name} = {expression}")
        self.channels[name] = channels
        return name

    def weight(self, *dims: int) -> str:
        name = f"W{len(self.weights)}"
        self.weights.append(f"float[{','.join(map(str, dims))}] {name}")
        return name

    def ints(self, *numbers: int) -> str:
        text = ", ".join(map(str, numbers))
        return self.put(0, f"Constant <value_ints = [{text}]> ()")

    def conv(self, x: str, made: int, groups: int = 1, kernel: int = 1) -> str:
        read, pad = self.channels[x], kernel // 2
        w = self.weight(made, read // groups, kernel, kernel)
        pads = f"pads = [{pad}, {pad}, {pad}, {pad}]"
        conv = f"Conv <group = {groups}, {pads}> ({x}, {w}, {self.weight(made)})"
        return self.put(made, conv)

    def depthwise(self, x: str) -> str:
        return self.conv(x, self.channels[x], self.channels[x], 3)

    def shuffle(self, x: str, groups: int) -> str:
        c, s = self.channels[x], self.size
        grouped = self.put(0, f"Reshape ({x}, {self.ints(1, groups, c // groups, s, s)})")
        swapped = self.put(0, f"Transpose <perm = [0, 2, 1, 3, 4]> ({grouped})")
        return self.put(c, f"Reshape ({swapped}, {self.ints(1, c, s, s)})")

    def halves(self, x: str) -> tuple[str, str]:
        c = self.channels[x] // 2
        a, b = f"a{len(self.body)}", f"b{len(self.body)}"
        self.channels |= {a: c, b: c}
        self.body.append(f"{a}, {b} = Split <axis = 1, num_outputs = 2> ({x})")
        return a, b

    def concat(self, *values: str) -> str:
        total = sum(self.channels[v] for v in values)
        return self.put(total, f"Concat <axis = 1> ({', '.join(values)})")

    def fused(self, *outputs: str, seed: int = 0) -> ir.Model:
        """The fused stage, with these outputs (and a classifier on the first)."""
        pooled = self.put(0, f"Flatten ({self.put(0, f'GlobalAveragePool ({outputs[0]})')})")
        c = self.channels[outputs[0]]
        self.body.append(f"y = Gemm <transB = 1> ({pooled}, {self.weight(7, c)}, {self.weight(7)})")
        made = ["float[1,7] y"]
        for i, value in enumerate(outputs[1:]):
            self.body.append(f"z{i} = Identity ({value})")
            made.append(f"float[1,{self.channels[value]},{self.size},{self.size}] z{i}")
        inputs = ", ".join([f"float[1,4,{self.size},{self.size}] x", *self.weights])
        text = f"g ({inputs}) => ({', '.join(made)}) {{ {' '.join(self.body)} }}"
        return advance(as_model(parse(text, seed=seed)), Stage.FUSED).graph


def absorbed(before: ir.Model, seed: int = 1) -> tuple[ir.Model, tuple[PassNote, ...]]:
    """The graph after the pass, checked to be described and to give the same numbers."""
    after = before.clone()
    result = AbsorbChannelPermutations().apply(after)
    RemoveUnused().apply(after)
    assert_described(after)
    assert_same_numbers(before, after, seed=seed, tolerance=5e-6)
    return after, result.notes


def shufflenet_v2(units: int, channels: int = 8) -> Graph:
    net = Graph()
    left, right = net.conv("x", channels), net.conv("x", channels)
    for _ in range(units):
        left, right = net.halves(net.shuffle(net.concat(left, right), 2))
        right = net.put(channels, f"Relu ({net.conv(right, channels)})")
        right = net.put(channels, f"Relu ({net.conv(net.depthwise(right), channels)})")
    net.conv(net.shuffle(net.concat(left, right), 2), 6)
    return net


def test_shufflenet_v2_keeps_only_slices_of_neighbours_and_concats() -> None:
    net = shufflenet_v2(3)
    after, notes = absorbed(net.fused(f"v{len(net.body) - 1}"))
    assert "ChannelShuffle" not in ops(after)
    assert "ConcatShuffleSplit" not in ops(after)
    assert ops(after).count("Concat") == 4  # one a unit, and the last
    assert ops(after).count("Slice") == 2 + 3 + 4 + 4  # each channel is cut out once
    assert all(note.matched for note in notes)


def test_each_value_is_its_own_in_the_order_that_it_names() -> None:
    net = shufflenet_v2(2)
    before = net.fused(f"v{len(net.body) - 1}")
    after, _ = absorbed(before)
    orders = channel_orders(after)
    assert orders
    known = {v.name: v for n in before.graph for v in n.outputs}
    shared = [v for n in after.graph for v in n.outputs if v.name in known]
    pairs = [(known[v.name], v) for v in shared if len(v.shape or ()) == 4]
    for model, values in ((before, [a for a, _ in pairs]), (after, [b for _, b in pairs])):
        model.graph.outputs.extend(values)
    feeds = random_feeds(before)
    expected, found = run(before, feeds)[1:], run(after, feeds)[1:]
    assert len(found) > 8
    for (_, value), wanted, got in zip(pairs, expected, found, strict=True):
        order = channel_order(value) or range(wanted.shape[1])
        np.testing.assert_allclose(got, wanted[:, list(order)], rtol=1e-5, atol=1e-4)


def test_orders_survive_saving() -> None:
    net = shufflenet_v2(1)
    after, _ = absorbed(net.fused(f"v{len(net.body) - 1}"))
    assert channel_orders(ir.from_proto(ir.to_proto(after))) == channel_orders(after)


def test_a_shuffle_between_pointwise_and_depthwise_vanishes() -> None:
    net = Graph()
    x = net.depthwise(net.shuffle(net.put(6, f"Relu ({net.conv('x', 6)})"), 3))
    after, _ = absorbed(net.fused(net.conv(x, 8)))
    assert ops(after) == ["Conv", "Relu", "Conv", "Conv", "ReduceMean", "Reshape", "Gemm"]


def test_the_linear_layer_absorbs_too() -> None:
    net = Graph()
    after, _ = absorbed(net.fused(net.shuffle(net.conv("x", 6), 2)))
    assert ops(after) == ["Conv", "ReduceMean", "Reshape", "Gemm"]


def test_up_to_three_groups_take_slices_and_four_stay_a_transpose() -> None:
    for groups, left in ((2, False), (3, False), (4, True)):
        net = Graph()
        x = net.shuffle(net.conv(net.conv("x", 24), 24, groups), groups)
        after, notes = absorbed(net.fused(net.conv(net.depthwise(x), 24, groups)))
        assert ("ChannelShuffle" in ops(after)) is left
        assert any("it would take 16 slices" in note.reason for note in notes) is left


def test_inputs_and_outputs_of_the_graph_keep_their_order() -> None:
    net = Graph()
    x = net.shuffle(net.conv("x", 6), 3)
    after, _ = absorbed(net.fused(net.conv(x, 4), x, net.shuffle("x", 2)))
    assert all(channel_order(v) is None for v in (*after.graph.inputs, *after.graph.outputs))


def test_an_output_that_is_shuffled_on_keeps_its_name() -> None:
    net = Graph()
    a, b = net.halves(net.conv("x", 6))
    joined = net.concat(a, net.conv(b, 3))
    after, _ = absorbed(net.fused(net.shuffle(joined, 2), joined))
    assert [v.name for v in after.graph.outputs] == ["y", "z0"]


def test_a_graph_without_shuffles_is_left_as_it_is() -> None:
    net = Graph()
    before = net.fused(net.conv(net.concat(*reversed(net.halves(net.conv("x", 6)))), 4))
    after = before.clone()
    assert not AbsorbChannelPermutations().apply(after).changed
    assert ops(after) == ops(before)


def test_two_runs_give_the_same_bytes() -> None:
    before = shufflenet_v2(2).fused("v0")
    made = [absorbed(before.clone())[0] for _ in range(2)]
    first, second = (ir.to_proto(m).SerializeToString(deterministic=True) for m in made)
    assert first == second


_STEPS = ("conv", "grouped", "depthwise", "shuffle", "shuffle", "concat", "halves", "add", "act")
_STEPS += ("affine", "pool", "gate", "unit", "unit")


def _grow(net: Graph, step: str, draw: st.DrawFn) -> None:
    values = [v for v, c in net.channels.items() if c]
    x = draw(st.sampled_from(values[-4:]))
    c = net.channels[x]
    groups = draw(st.sampled_from([g for g in (1, 2, 3) if c % g == 0]))
    if step == "conv":
        net.conv(x, draw(st.sampled_from([4, 6, 8])), kernel=draw(st.sampled_from([1, 3])))
    elif step == "grouped":
        net.conv(x, groups * draw(st.sampled_from([1, 2, 4])), groups)
    elif step == "depthwise":
        net.depthwise(x)
    elif step == "shuffle":
        net.shuffle(x, groups)
    elif step == "concat" and c < 24:
        net.concat(x, draw(st.sampled_from(values[-4:])))
    elif step == "halves" and c % 2 == 0:
        net.halves(x)
    elif step == "add":
        net.put(
            c, f"Add ({x}, {draw(st.sampled_from([v for v in values if net.channels[v] == c]))})"
        )
    elif step == "act":
        net.put(c, f"{draw(st.sampled_from(['Relu', 'HardSwish', 'Sigmoid']))} ({x})")
    elif step == "affine":
        net.put(
            c, f"Mul ({net.put(c, f'Add ({x}, {net.weight(c, 1, 1)})')}, {net.weight(1, c, 1, 1)})"
        )
    elif step == "pool":
        net.put(c, f"MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> ({x})")
    elif step == "gate":
        net.put(c, f"Mul ({x}, {net.put(0, f'GlobalAveragePool ({x})')})")
    elif step == "unit" and c % 2 == 0 and c < 24:
        a, b = net.halves(x)
        net.shuffle(net.concat(a, net.conv(b, net.channels[b])), 2)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    net = Graph()
    net.conv("x", draw(st.sampled_from([4, 6, 8])))
    for step in draw(st.lists(st.sampled_from(_STEPS), min_size=2, max_size=14)):
        _grow(net, step, draw)
    return net


@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(net=graphs(), seed=st.integers(0, 1000), as_output=st.booleans())
def test_random_graphs_give_the_same_numbers(net: Graph, seed: int, as_output: bool) -> None:
    values = [v for v, c in net.channels.items() if c]
    absorbed(net.fused(values[-1], *(values[-3:-2] if as_output else ()), seed=seed), seed)
