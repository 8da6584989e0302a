"""Canonical form of what computes: one spelling, the same numbers, and every reason."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from deploykit.graph.reading import constant_array, is_op
from deploykit_testing.graphs import (
    assert_described,
    assert_same_numbers,
    attributes_of,
    canonical_reasons,
    check_canonical,
    constants_of,
    parse,
    prepare,
)

# --- Conv and ConvTranspose


@settings(max_examples=25, deadline=None)
@given(
    op=st.sampled_from(["Conv", "MaxPool", "AveragePool"]),
    mode=st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID"]),
    height=st.integers(4, 8),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
)
def test_auto_pad_becomes_pads(op: str, mode: str, height: int, kernel: int, stride: int) -> None:
    assume(kernel >= stride)  # ONNX Runtime's pools refuse the negative padding otherwise
    weights = f", float[2,2,{kernel},2] W" if op == "Conv" else ""
    size = "" if op == "Conv" else f", kernel_shape = [{kernel}, 2]"
    text = f"""g (float[1,2,{height},6] x{weights}) => (float[1,2,H,V] y) {{
        y = {op} <auto_pad = "{mode}", strides = [{stride}, 1]{size}> (x{", W" if weights else ""})
    }}"""
    after = prepare(parse(text))
    assert_same_numbers(parse(text), after)
    for node in after.graph:
        assert "auto_pad" not in node.attributes


def test_conv_has_every_attribute() -> None:
    text = "g (float[1,4,6,6] x, float[4,4,3,3] W) => (float[1,4,4,4] y) { y = Conv (x, W) }"
    node = check_canonical(text, ["Conv"]).graph[0]
    assert attributes_of(node) == {
        "kernel_shape": (3, 3),
        "strides": (1, 1),
        "dilations": (1, 1),
        "pads": (0, 0, 0, 0),
        "group": 1,
    }


@pytest.mark.parametrize(
    "attributes",
    [
        'auto_pad = "SAME_UPPER", strides = [2, 2]',
        'auto_pad = "SAME_LOWER", strides = [2, 2]',
        'auto_pad = "VALID", strides = [2, 3]',
        "output_shape = [9, 9], strides = [2, 2]",
        "output_shape = [10, 10], strides = [2, 2], output_padding = [1, 1]",
        "pads = [1, 1, 0, 0], strides = [2, 2], dilations = [2, 1]",
    ],
)
def test_conv_transpose_has_pads(attributes: str) -> None:
    text = f"""g (float[1,2,5,5] x, float[2,3,3,3] W) => (float[1,3,H,V] y) {{
        y = ConvTranspose <{attributes}> (x, W) }}"""
    node = check_canonical(text, ["ConvTranspose"]).graph[0]
    assert set(attributes_of(node)) == {
        *("kernel_shape", "strides", "dilations", "pads", "output_padding", "group")
    }


def test_reasons_of_convolutions() -> None:
    text = "g (float[1,2,8] x, float[2,2,3] W) => (float[1,2,6] y) { y = Conv (x, W) }"
    assert canonical_reasons(text) == ["Conv over 1 spatial axes: targets know two"]
    text = "g (float[1,2,8,8] x, float[2,2,3,3] w) => (float[1,2,6,6] y) { y = Conv (x, w) }"
    assert canonical_reasons(text) == ["the weights of Conv are computed"]


# --- pools and reductions


@pytest.mark.parametrize("kind", ["Average", "Max"])
def test_pools_over_the_whole_map(kind: str) -> None:
    for op in (f"Global{kind}Pool", f"{kind}Pool <kernel_shape = [4, 5]>"):
        text = f"g (float[1,3,4,5] x) => (float[1,3,1,1] y) {{ y = {op} (x) }}"
        reduction = "ReduceMean" if kind == "Average" else "ReduceMax"
        node = check_canonical(text, [reduction]).graph[0]
        assert attributes_of(node) == {"keepdims": 1}
        assert constants_of(node) == [[2, 3]]


@settings(max_examples=25, deadline=None)
@given(
    op=st.sampled_from(["MaxPool", "AveragePool"]),
    size=st.integers(5, 9),
    kernel=st.integers(2, 3),
    stride=st.integers(1, 3),
    pad=st.integers(0, 1),
)
def test_ceil_mode_becomes_pads(op: str, size: int, kernel: int, stride: int, pad: int) -> None:
    text = f"""g (float[1,2,{size},{size}] x) => (float[1,2,H,V] y) {{
        y = {op} <kernel_shape = [{kernel}, {kernel}], strides = [{stride}, {stride}],
                  pads = [{pad}, {pad}, {pad}, {pad}], ceil_mode = 1> (x) }}"""
    before = parse(text)
    after = prepare(before)
    assert_same_numbers(before, after)
    for node in after.graph:
        left = node.attributes["ceil_mode"].as_int()
        assert left == 0 or canonical_reasons(text) == [
            "ceil_mode gives a window that lies in the padding"
        ]


@pytest.mark.parametrize(
    ("pool", "reason"),
    [
        (
            """AveragePool <kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1,
            count_include_pad = 1> (x)""",
            "ceil_mode with count_include_pad: padding would be counted",
        ),
        (
            "MaxPool <kernel_shape = [2, 2], dilations = [2, 2]> (x)",
            "MaxPool with dilations [2, 2]",
        ),
    ],
)
def test_reasons_of_pools(pool: str, reason: str) -> None:
    text = f"g (float[1,2,5,5] x) => (float[1,2,H,V] y) {{ y = {pool} }}"
    assert canonical_reasons(text) == [reason]


def test_indices_of_max_pool() -> None:
    text = """g (float[1,2,4,4] x) => (float[1,2,2,2] y, int64[1,2,2,2] i) {
        y, j = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x) i = Identity (j) }"""
    assert canonical_reasons(text) == ["the indices of MaxPool are read"]


@pytest.mark.parametrize(
    ("reduction", "axes"),
    [
        ("ReduceMean <keepdims = 0> (x, a)", [1, 2]),
        ("ReduceMax (x, a)", [1, 2]),
        ("ReduceSum (x)", [0, 1, 2]),
    ],
)
def test_axes_are_sorted_and_not_negative(reduction: str, axes: list[int]) -> None:
    text = f"""g (float[2,3,4] x) => (float[A,B,C] y) <int64[2] a = {{-1, 1}}> {{
        z = {reduction} y = Neg (z) }}"""
    text = text.replace("float[A,B,C] y", "float[A] y" if "= 0" in reduction else "float[A,B,C] y")
    node = check_canonical(text, [reduction.split()[0], "Neg"], tolerance=1e-5).graph[0]
    assert constants_of(node) == [axes]


def test_no_axes_may_mean_nothing() -> None:
    text = """g (float[2,3] x) => (float[2,3] y) {
        z = ReduceMean <noop_with_empty_axes = 1> (x) y = Relu (z) }"""
    check_canonical(text, ["Relu"])


# --- Gemm and MatMul


@settings(max_examples=25, deadline=None)
@given(
    trans_a=st.integers(0, 1),
    trans_b=st.integers(0, 1),
    alpha=st.sampled_from([1.0, 0.5]),
    beta=st.sampled_from([1.0, 2.0, 0.0]),
    bias=st.sampled_from(["", "5", "1,5", "1", "3,5", "3,1"]),
    computed=st.booleans(),
)
def test_gemm(
    trans_a: int, trans_b: int, alpha: float, beta: float, bias: str, computed: bool
) -> None:
    a = "4,3" if trans_a else "3,4"
    b = "5,4" if trans_b else "4,5"
    weight = "w" if computed else "W"
    declared = f", float[{bias}] C" if bias else ""
    text = f"""g (float[{a}] x, float[{b}] {weight}{declared}) => (float[3,5] y) {{
        y = Gemm <transA = {trans_a}, transB = {trans_b}, alpha = {alpha}, beta = {beta}>
            (x, {weight}{", C" if bias else ""}) }}"""
    before = parse(text)
    after = prepare(before)
    assert_described(after)
    assert_same_numbers(before, after, tolerance=1e-5)
    for node in after.graph:
        if is_op(node, "Gemm"):
            assert not computed
            assert attributes_of(node) == {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}
            assert [a.ndim for a in map(constant_array, node.inputs[2:]) if a is not None] in (
                [],
                [1],
            )


def test_gemm_with_a_computed_bias() -> None:
    text = """g (float[3,4] x, float[4,5] W, float[5] c) => (float[3,5] y) {
        y = Gemm <beta = 0.5> (x, W, c) }"""
    check_canonical(text, ["Mul", "Gemm", "Add"], tolerance=1e-5)


def test_a_quantized_gemm_stays() -> None:
    text = """g (float[1,2] x) => (float[1,3] y) <int8[3,2] q = {1, 2, 3, 4, 5, 6}, float s = {0.5},
        int8 z = {0}, float[3] b = {1, 2, 3}> {
        w = DequantizeLinear (q, s, z) y = Gemm <transB = 1> (x, w, b) }"""
    check_canonical(text, ["DequantizeLinear", "Gemm"])


def test_matmul() -> None:
    text = "g (float[3,4] x, float[4,5] W) => (float[3,5] y) { y = MatMul (x, W) }"
    check_canonical(text, ["Gemm"], tolerance=1e-5)
    text = "g (float[2,3,4] x, float[4,5] W) => (float[2,3,5] y) { y = MatMul (x, W) }"
    check_canonical(text, ["MatMul"])
    assert canonical_reasons(text) == ["a constant of rank 2 times a value of rank 3"]


# --- arithmetic, bounds, activations


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("y = Sub (x, C)", ["Add"]),
        ("y = Sub (C, x)", ["Sub"]),
        ("y = Div (x, VarC)", ["Mul"]),
        ("y = Div (VarC, x)", ["Div"]),
        ("y = Add (C, x)", ["Add"]),
        ("y = Sum (x, w, C)", ["Add", "Add"]),
        ("y = Max (C, x, w)", ["Max", "Max"]),
        ("z = Min (x) y = Neg (z)", ["Neg"]),
        ("y = Pow (x, two)", ["Mul"]),
        ("z = Abs (x) y = Pow (z, half)", ["Abs", "Sqrt"]),
        ("z = Pow (x, one) y = Neg (z)", ["Neg"]),
        ("z = Abs (x) a = Add (z, one) y = Reciprocal (a)", ["Abs", "Add", "Div"]),
        ("y = Clip (x, zero, two)", ["Clip"]),
        ("y = Clip (x, zero)", ["Relu"]),
        ("y = Clip (x, one)", ["Max"]),
        ("y = Clip (x, , one)", ["Min"]),
        ("z = Clip (x) y = Neg (z)", ["Neg"]),
        ("y = Clip (x, zero, huge)", ["Relu"]),
        ("y = HardSigmoid (x)", ["HardSigmoid"]),
        ("y = LeakyRelu (x)", ["LeakyRelu"]),
        ("y = Elu (x)", ["Elu"]),
        ("y = Gelu (x)", ["Gelu"]),
        ("y = Softmax (x)", ["Softmax"]),
        ("y = PRelu (x, VarC)", ["PRelu"]),
        ("y = PRelu (x, one)", ["PRelu"]),
    ],
)
def test_elementwise(body: str, expected: list[str]) -> None:
    text = f"""g (float[2,3,4,4] x, float[2,3,4,4] w, float[3,1,1] C, float[3,1,1] VarC)
        => (float[2,3,4,4] y) <float zero = {{0}}, float[1] one = {{1}}, float two = {{2}},
        float half = {{0.5}}, float huge = {{3.4028234663852886e38}}> {{ {body} }}"""
    model = check_canonical(text, expected, tolerance=1e-5)
    node = model.graph[len(model.graph) - 1]
    if node.op_type in ("Add", "Mul", "Max", "Min"):
        assert constant_array(node.inputs[0]) is None
    if node.op_type == "Clip":
        assert constants_of(node) == [0.0, 2.0]
    if node.op_type == "Softmax":
        assert attributes_of(node) == {"axis": 3}
    if node.op_type == "PRelu":
        slope = constant_array(node.inputs[1])
        assert slope is not None
        assert slope.shape == (3, 1, 1)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("y = Div (x, zeros)", "the divisor has no finite reciprocal"),
        ("y = Clip (x, w)", "the bounds of Clip are computed"),
        ("y = PRelu (x, W)", "a slope of shape [4] is not one a channel"),
        ("n = Neg (x) y = PRelu (x, n)", "the slope of PRelu is computed"),
        ("y = Mish (x)", "Mish is outside of the canonical set"),
    ],
)
def test_reasons_of_elementwise(body: str, reason: str) -> None:
    text = f"""g (float[2,3,4,4] x, float w, float[4] W) => (float[2,3,4,4] y)
        <float[2] zeros = {{0, 1}}> {{ {body} }}"""
    if "zeros" in body:
        text = text.replace("[2,3,4,4]", "[2,2]")
    assert canonical_reasons(text) == [reason]
