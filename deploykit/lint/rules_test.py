"""Each rule on a graph that has what it looks for, and on one that has not."""

from __future__ import annotations

import pytest

from deploykit.cost.bounds import pointwise_mac_bound, pointwise_mac_elements
from deploykit.errors import UserError
from deploykit.lint import Finding, LintReport, Severity, lint_model
from deploykit.lint.fragmentation import measure_block, split_blocks
from deploykit.lint.rule import RULES, LintContext, Rule
from deploykit.model import Precision
from deploykit_testing.graphs import as_model, parse


def _lint(text: str, *, precisions: tuple[Precision, ...] = (Precision.FP32,)) -> LintReport:
    return lint_model(as_model(parse(text)), precisions=precisions, target="")


def _findings(rule: str, text: str, **options) -> list[Finding]:
    return [f for f in _lint(text, **options).findings if f.rule == rule]


def _pointwise(c1: int, c2: int, side: int = 8, attributes: str = "") -> str:
    return f"""g (float[1, {c1}, {side}, {side}] x, float[{c2}, {c1}, 1, 1] W)
        => (float[1, {c2}, p, q] y) {{ y = Conv {attributes} (x, W) }}"""


def test_unequal_channels() -> None:
    (found,) = _findings("unequal-channels", _pointwise(8, 64))
    cost, bound = pointwise_mac_elements(64, 8, 64), pointwise_mac_bound(64, 64 * 8 * 64)
    assert found.number == pytest.approx(cost / bound)
    assert found.severity is Severity.WARNING
    assert found.value_name == "y"
    assert "8 > 64 channels" in found.message
    assert "23 > 23" in found.advice  # sqrt(8 * 64)
    assert found.share == pytest.approx((cost - bound) / cost)


def test_equal_channels_and_strides_are_left() -> None:
    assert _findings("unequal-channels", _pointwise(16, 16)) == []
    assert _findings("unequal-channels", _pointwise(8, 64, attributes="<strides = [2, 2]>")) == []


def test_groups() -> None:
    text = """g (float[1, 24, 8, 8] x, float[48, 8, 1, 1] W) => (float[1, 48, 8, 8] y) {
        y = Conv <group = 3> (x, W) }"""
    (found,) = _findings("grouped-convolution", text)
    mult_adds = 64 * 48 * 8
    cost = 64 * 24 + mult_adds * 3 / 24 + mult_adds / 64
    dense = 64 * 24 + mult_adds / 24 + mult_adds / 64
    assert found.number == pytest.approx(cost / dense)
    assert found.severity is Severity.WARNING
    assert "24 > 16 channels" in found.message


def test_depthwise_is_no_group_count() -> None:
    text = """g (float[1, 8, 8, 8] x, float[8, 1, 3, 3] W) => (float[1, 8, 6, 6] y) {
        y = Conv <group = 8> (x, W) }"""
    assert _findings("grouped-convolution", text) == []


def _branches(count: int) -> str:
    weights = ", ".join(f"float[8, 8, 1, 1] W{i}" for i in range(count))
    nodes = "\n".join(f"b{i} = Conv (x, W{i})" for i in range(count))
    names = ", ".join(f"b{i}" for i in range(count))
    return f"""g (float[1, 8, 8, 8] x, {weights}, float[8, {8 * count}, 1, 1] V)
        => (float[1, 8, 8, 8] y) {{
        {nodes}
        c = Concat <axis = 1> ({names})
        y = Conv (c, V) }}"""


def test_parallel_branches() -> None:
    (found,) = _findings("fragmentation", _branches(4))
    assert found.number == 4
    assert found.severity is Severity.WARNING
    assert "4 side by side and 1 one behind the other" in found.message
    # four outputs of 512 written, and read again by the Concat: of 4 bytes
    assert "16.38 kB of" in found.message
    assert _findings("fragmentation", _branches(2)) == []


def test_a_chain_is_cut_into_single_layers() -> None:
    text = """g (float[1, 8, 8, 8] x, float[8, 8, 1, 1] W) => (float[1, 8, 8, 8] y) {
        a = Conv (x, W)
        b = Conv (a, W)
        c = Conv (b, W)
        d = Conv (c, W)
        y = Conv (d, W) }"""
    assert _findings("fragmentation", text) == []


def test_blocks_end_where_one_node_made_all_that_is_alive() -> None:
    from deploykit.cost.profile import fused_stage, profile_stages

    text = """g (float[1, 8, 8, 8] x, float[8, 8, 1, 1] W) => (float[1, 8, 8, 8] y) {
        a = Conv (x, W)
        ra = Relu (a)
        b = Conv (ra, W)
        c = Conv (b, W)
        s = Add (c, ra)
        rs = Relu (s)
        y = Conv (rs, W) }"""
    fused = fused_stage(as_model(parse(text)))
    cost = profile_stages(fused, fused, Precision.FP32).after
    blocks = split_blocks(list(LintContext(fused, fused.graph, cost, (), None).layers()))
    assert [[x.op_type for x, _ in block] for block in blocks] == [
        ["Conv + Relu"], ["Conv", "Conv", "Add + Relu"], ["Conv"]
    ]  # fmt: skip
    assert measure_block(blocks[1]) == (2, 1, 2)


def test_elementwise_share() -> None:
    text = """g (float[1, 8, 8, 8] x, float[8, 8, 1, 1] W) => (float[1, 8, 8, 8] y) {
        a = Conv (x, W)
        y = Add (a, x) }"""
    whole, layer = _findings("elementwise-share", text)
    add, conv = 4 * 3 * 512, 4 * (2 * 512 + 64)
    assert whole.layer == "(whole network)"
    assert whole.number == pytest.approx(add / (add + conv))
    assert whole.severity is Severity.WARNING
    assert (layer.value_name, layer.severity) == ("y", Severity.INFO)
    assert _findings("elementwise-share", _pointwise(8, 8)) == []


SWISH = """g (float[1, 8, 8, 8] x, float[8, 8, 1, 1] W) => (float[1, 8, 8, 8] y) {
    a = Conv (x, W)
    y = HardSwish (a) }"""


def test_quantizes_badly_matters_in_int8_alone() -> None:
    (found,) = _findings("quantizes-badly", SWISH, precisions=(Precision.INT8,))
    assert found.number == pytest.approx(255 * 0.375 / 6.375)
    assert found.severity is Severity.WARNING
    assert _findings("quantizes-badly", SWISH, precisions=(Precision.FP32,)) == []
    sigmoid = SWISH.replace("y = HardSwish (a)", "g = Sigmoid (a)\ny = Mul (a, g)")
    (found,) = _findings("quantizes-badly", sigmoid, precisions=(Precision.INT8,))
    assert "Silu" in found.message


def test_channel_multiple() -> None:
    (found,) = _findings("channel-multiple", _pointwise(8, 12))
    assert found.number == pytest.approx(16 / 12)
    assert found.severity is Severity.WARNING
    assert found.advice == "take 8 or 16 channels"
    assert found.share == pytest.approx(1 / 3)
    assert _findings("channel-multiple", _pointwise(12, 16)) == []


def _strided(side: int, pads: str = "1, 1, 1, 1") -> str:
    return f"""g (float[1, 8, {side}, {side}] x, float[8, 8, 3, 3] W, float[8, 8, 3, 3] V)
        => (float[1, 8, p, q] y) {{
        a = Conv <strides = [2, 2], pads = [{pads}]> (x, W)
        y = Conv <strides = [2, 2], pads = [{pads}]> (a, V) }}"""


def test_wasted_padding() -> None:
    (found,) = _findings("wasted-padding", _strided(26))  # 26 > 13 > 7
    assert found.number == pytest.approx(1 - 13 * 13 / 14**2)
    assert found.severity is Severity.WARNING
    assert "13x13 with stride 2 becomes 7x7" in found.message
    assert "total stride of 4 divides: 24 or 28 instead of 26" in found.advice
    assert _findings("wasted-padding", _strided(24)) == []
    assert _findings("wasted-padding", _strided(27, "0, 0, 0, 0")) == []  # drops rows instead


def test_delegate_split_comes_from_the_target() -> None:
    pytest.importorskip("ai_edge_litert")
    text = """g (float[1, 8, 8, 8] x, float[8, 8, 1, 1] W) => (float[1, 8, 10, 10] y) {
        pads = Constant <value_ints = [0, 0, 1, 1, 0, 0, 1, 1]> ()
        a = Conv (x, W)
        b = Pad <mode = "reflect"> (a, pads)
        y = Conv (b, W) }"""
    model = as_model(parse(text))
    report = lint_model(model, precisions=(Precision.FP32, Precision.INT8), target="tflite")
    found = [f for f in report.findings if f.rule == "delegate-split"]
    assert [(f.value_name, f.severity) for f in found] == [("b", Severity.ERROR)] * 2
    assert "MIRROR_PAD in fp32 is not taken by XNNPACK" in found[0].message
    assert report.reaches(Severity.ERROR)
    assert not _lint(text).reaches(Severity.ERROR)  # without a target nothing is known


def test_at_an_end_a_split_is_a_warning() -> None:
    pytest.importorskip("ai_edge_litert")
    text = """g (float[1, 8, 8, 8] x, float[8, 8, 1, 1] W) => (float[1, 8, 10, 10] y) {
        pads = Constant <value_ints = [0, 0, 1, 1, 0, 0, 1, 1]> ()
        a = Conv (x, W)
        y = Pad <mode = "reflect"> (a, pads) }"""
    report = lint_model(as_model(parse(text)), precisions=(Precision.FP32,), target="tflite")
    (found,) = [f for f in report.findings if f.rule == "delegate-split"]
    assert found.severity is Severity.WARNING


def test_unknown_rules_and_ignored_rules() -> None:
    model = as_model(parse(_pointwise(8, 64)))
    with pytest.raises(UserError, match="no rule is called nonsense"):
        lint_model(model, target="", ignore=["nonsense"])
    report = lint_model(model, target="", ignore=list(RULES))
    assert report.findings == ()


def test_uncounted_ops_are_told() -> None:
    text = "g (float[1, 8] x) => (float[1, 8] y) { y = Sin (x) }"
    assert _lint(text).uncounted == "1 op uncounted: 1 Sin"


@pytest.mark.parametrize("rule", RULES.values(), ids=list(RULES))
def test_every_rule_says_what_it_is(rule: Rule) -> None:
    assert rule.text
    assert isinstance(rule.severity, Severity)


def test_the_worst_comes_first_and_reports_repeat() -> None:
    text = """g (float[1, 8, 8, 8] x, float[20, 8, 1, 1] W, float[12, 20, 3, 3] V)
        => (float[1, 12, 6, 6] y) {
        a = Conv (x, W)
        y = Conv (a, V) }"""
    found = _findings("channel-multiple", text)
    assert [f.value_name for f in found] == ["y", "a"]
    assert _lint(text) == _lint(text)


def test_an_op_that_cannot_be_lowered_is_told_with_all_other_findings() -> None:
    pytest.importorskip("ai_edge_litert")
    text = _pointwise(8, 12).replace("y = Conv  (x, W)", "c = Conv (x, W)\ny = Sin (c)")
    report = lint_model(as_model(parse(text)), precisions=(Precision.FP32,), target="tflite")
    by_rule = {f.rule: f for f in report.findings}
    assert by_rule["delegate-split"].severity is Severity.ERROR
    assert by_rule["delegate-split"].message.startswith("Sin cannot be lowered in fp32")
    assert "channel-multiple" in by_rule


def test_a_quantized_model_is_verified_by_its_float_shape_and_in_int8_alone() -> None:
    text = """g (float[1, 8, 4, 4] x, float[12, 8, 1, 1] W) => (float[1, 12, 4, 4] y) {
        s = Constant <value_float = 0.1> ()
        z = Constant <value = int8 {0}> ()
        xq = QuantizeLinear (x, s, z)
        xd = DequantizeLinear (xq, s, z)
        wq = QuantizeLinear (W, s, z)
        wd = DequantizeLinear (wq, s, z)
        c = Conv (xd, wd)
        cq = QuantizeLinear (c, s, z)
        y = DequantizeLinear (cq, s, z) }"""
    model = as_model(parse(text))
    report = lint_model(model, target="")
    assert report.precisions == ("int8",)
    assert [f.rule for f in report.findings] == ["channel-multiple"]
    with pytest.raises(UserError, match="quantized already"):
        lint_model(model, precisions=(Precision.FP32,), target="")
