"""Grouped pointwise convolutions on slices: when, and the same numbers."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from deploykit.graph.reading import read_int
from deploykit.model import Stage
from deploykit.passes.absorb_channel_permutations import AbsorbChannelPermutations
from deploykit.passes.hoist_activations import HoistActivations
from deploykit.passes.pipeline import advance
from deploykit.passes.remove_unused import RemoveUnused
from deploykit.passes.split_grouped_convolutions import SplitGroupedConvolutions
from deploykit_testing.graphs import (
    as_model,
    assert_described,
    assert_same_numbers,
    check,
    ops,
    parse,
)


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


def _shuffle(x: str, y: str, channels: int, groups: int, size: int) -> str:
    grouped = f"1, {groups}, {channels // groups}, {size}, {size}"
    return f"""{y}_split = Constant <value_ints = [{grouped}]> ()
        {y}_joined = Constant <value_ints = [1, {channels}, {size}, {size}]> ()
        {y}_grouped = Reshape ({x}, {y}_split)
        {y}_swapped = Transpose <perm = [0, 2, 1, 3, 4]> ({y}_grouped)
        {y} = Reshape ({y}_swapped, {y}_joined)
        """


def _shufflenet_v1(groups: int, middle: int, out: int, *, units: int = 2, bias: bool = True) -> str:
    """A unit with stride 2 on (1, out / 2, 8, 8), then units with stride 1, mean and linear."""
    weights: list[str] = []

    def conv(x: str, y: str, dims: tuple[int, ...], group: int, stride: int = 1) -> str:
        n, pad = len(weights), dims[2] // 2
        weights.append(f"float[{','.join(map(str, dims))}] W{n}, float[{dims[0]}] B{n}")
        pads = f"pads = [{pad}, {pad}, {pad}, {pad}], strides = [{stride}, {stride}]"
        operands = f"{x}, W{n}, B{n}" if bias else f"{x}, W{n}"
        return f"{y} = Conv <group = {group}, {pads}> ({operands})\n"

    body, x, read = "", "x", out // 2
    for unit in range(units):
        stride, made = (2, out - read) if unit == 0 else (1, out)
        size = 8 if unit == 0 else 4
        a, b, c, d, y = (f"{name}{unit}" for name in "abcdy")
        body += conv(x, f"{a}_linear", (middle, read // groups, 1, 1), groups)
        body += f"{a} = Relu ({a}_linear)\n" + _shuffle(a, b, middle, groups, size)
        body += conv(b, c, (middle, 1, 3, 3), middle, stride)
        body += conv(c, d, (made, middle // groups, 1, 1), groups)
        if stride == 2:
            pool = "kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]"
            body += f"p = AveragePool <{pool}, count_include_pad = 1> ({x})\n"
            body += f"{y}_sum = Concat <axis = 1> (p, {d})\n"
        else:
            body += f"{y}_sum = Add ({x}, {d})\n"
        body += f"{y} = Relu ({y}_sum)\n"
        x, read = y, out
    body += f"m = GlobalAveragePool ({x})\nf = Flatten (m)\n"
    body += "z = Gemm <transB = 1> (f, Wz, Bz)\n"
    kept = [w if bias else w.split(", float[")[0] for w in weights]
    inputs = ", ".join([f"float[1,{out // 2},8,8] x", *kept, f"float[7,{out}] Wz", "float[7] Bz"])
    return f"g ({inputs}) => (float[1,7] z) {{ {body} }}"


def _carried(text: str) -> tuple[ir.Model, ir.Model]:
    """The fused stage, and it with groups apart and shuffles absorbed; the numbers are the same."""
    before = advance(as_model(parse(text)), Stage.FUSED).graph
    after = before.clone()
    HoistActivations().apply(after)
    SplitGroupedConvolutions().apply(after)
    RemoveUnused().apply(after)
    assert_described(after)
    assert_same_numbers(before, after, tolerance=5e-6)
    AbsorbChannelPermutations().apply(after)
    RemoveUnused().apply(after)
    assert_described(after)
    assert_same_numbers(before, after, tolerance=5e-6)
    return before, after


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [2, 3, 4])
def test_groups_beside_shuffles_are_carried_apart(groups: int, bias: bool) -> None:
    """Between the units nothing is joined: every convolution reads what one before it made."""
    before, after = _carried(_shufflenet_v1(groups, 4 * groups, 8 * groups, units=3, bias=bias))
    assert ops(before).count("ChannelShuffle") == 3
    assert "ChannelShuffle" not in ops(after)
    # Of a unit: the bottleneck's slices for each group. The last: means for the linear layer. The
    # first: the pooled channels and the branch's, joined where the groups lie otherwise.
    joins = [n for n in after.graph if n.op_type == "Concat"]
    assert len(joins) <= 3 * groups + 1 + groups
    assert ops(after).count("Add") == 2 * groups
    cut = {n.inputs[0] for n in after.graph if n.op_type == "Slice"}
    assert not any(v.producer().op_type == "Concat" for v in cut if v.producer() is not None)
    assert {read_int(n, "group", 1) for n in after.graph if n.op_type == "Conv"} <= {
        *(1, 4),  # dense, or depthwise on one part
    }


def test_channels_that_do_not_divide_by_the_groups_squared() -> None:
    _, after = _carried(_shufflenet_v1(3, 3 * 5, 24, units=3))
    assert "ChannelShuffle" not in ops(after)


def test_too_many_groups_keep_their_shuffles() -> None:
    before, after = _carried(_shufflenet_v1(8, 32, 64))
    assert ops(after) == ops(before)


def test_a_computed_bias_keeps_the_grouped_convolution() -> None:
    text = """g (float[1,24,6,6] x, float[12] b, float[12,8,1,1] W) => (float[1,12,H,V] y)
        { y = Conv <group = 3> (x, W, b) }"""
    (reason,) = check(SplitGroupedConvolutions(), text, ["Conv"])
    assert "bias" in reason


def test_a_sum_that_is_read_elsewhere_is_still_whole_there() -> None:
    """A value of which an output is made too: it is joined for that one reader."""
    text = _shufflenet_v1(3, 12, 24, units=3)
    text = text.replace("=> (float[1,7] z)", "=> (float[1,7] z, float[1,24,4,4] y1)")
    before, after = _carried(text)
    assert [v.name for v in after.graph.outputs] == [v.name for v in before.graph.outputs]
    assert "ChannelShuffle" not in ops(after)
