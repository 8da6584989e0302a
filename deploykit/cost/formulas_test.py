"""Formulas against numbers worked out by hand, and a formula for every op of the canonical set."""

from __future__ import annotations

import pytest

from deploykit.cost.formulas import FORMULAS, count_node, data_inputs, parameters_of
from deploykit.graph.functions import add_function
from deploykit.graph.ops import CANONICAL_OPS, DOMAIN
from deploykit_testing.static_graphs import parse_static


@pytest.mark.parametrize("op", CANONICAL_OPS, ids=lambda op: op.op_type)
def test_every_canonical_op_names_a_formula(op) -> None:
    formula, _, operations = op.cost.partition(" ")
    assert formula in FORMULAS
    assert (int(operations or 0) > 0) == (formula == "elementwise")


def _count(text: str):
    return count_node(list(parse_static(text).graph)[-1])


CASES = {
    # 2*16*3*3 taps an output: 8 channels of 4 inputs each (group 2), 5x5 outputs of stride 2
    "Conv": (
        """g (float[1, 8, 9, 9] x, float[16, 4, 3, 3] W, float[16] B) => (float[1, 16, 5, 5] y) {
            y = Conv <pads = [1, 1, 1, 1], strides = [2, 2], group = 2> (x, W, B) }""",
        16 * 5 * 5 * 4 * 9,
        2 * 16 * 5 * 5 * 4 * 9 + 16 * 25,
    ),
    "ConvTranspose": (
        """g (float[1, 4, 5, 5] x, float[4, 6, 2, 2] W) => (float[1, 6, 10, 10] y) {
            y = ConvTranspose <strides = [2, 2]> (x, W) }""",
        4 * 25 * 6 * 4,
        2 * 4 * 25 * 6 * 4,
    ),
    "Gemm": (
        """g (float[2, 7] x, float[5, 7] W, float[5] B) => (float[2, 5] y) {
            y = Gemm <transB = 1> (x, W, B) }""",
        2 * 5 * 7,
        2 * 2 * 5 * 7 + 10,
    ),
    "MatMul": (
        "g (float[3, 4, 6] a, float[3, 6, 5] b) => (float[3, 4, 5] y) { y = MatMul (a, b) }",
        3 * 4 * 5 * 6,
        2 * 3 * 4 * 5 * 6,
    ),
    "Add": ("g (float[1, 4, 3] x, float[1, 4, 3] z) => (float[1, 4, 3] y) { y = Add (x, z) }",
            0, 12),
    "broadcast": ("g (float[2, 3] x, float[4, 1, 3] z) => (float[4, 2, 3] y) { y = Mul (x, z) }",
                  0, 24),
    "Clip": (
        """g (float[10] x) => (float[10] y) {
            low = Constant <value_float = 0.0> ()
            high = Constant <value_float = 6.0> ()
            y = Clip (x, low, high) }""",
        0,
        20,
    ),
    "HardSwish": ("g (float[10] x) => (float[10] y) { y = HardSwish (x) }", 0, 50),
    "Gelu": ("g (float[10] x) => (float[10] y) { y = Gelu (x) }", 0, 50),
    "Gelu by tanh": (
        'g (float[10] x) => (float[10] y) { y = Gelu <approximate = "tanh"> (x) }', 0, 90),
    "MaxPool": (
        """g (float[1, 2, 4, 4] x) => (float[1, 2, 2, 2] y) {
            y = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x) }""",
        0,
        2 * 4 * 3,
    ),
    "AveragePool": (
        """g (float[1, 2, 4, 4] x) => (float[1, 2, 2, 2] y) {
            y = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (x) }""",
        0,
        2 * 4 * 4,
    ),
    "ReduceMean": (
        """g (float[1, 3, 4, 4] x) => (float[1, 3, 1, 1] y) {
            axes = Constant <value_ints = [2, 3]> ()
            y = ReduceMean (x, axes) }""",
        0,
        48,  # 45 additions and 3 divisions
    ),
    "ReduceMax": (
        """g (float[1, 3, 4, 4] x) => (float[1, 3, 1, 1] y) {
            axes = Constant <value_ints = [2, 3]> ()
            y = ReduceMax (x, axes) }""",
        0,
        45,
    ),
    "Resize": (
        """g (float[1, 2, 3, 3] x) => (float[1, 2, 6, 6] y) {
            sizes = Constant <value_ints = [1, 2, 6, 6]> ()
            y = Resize <mode = "linear"> (x, , , sizes) }""",
        0,
        3 * 3 * 72,  # two interpolations along one axis, one along the other
    ),
    "nearest": (
        """g (float[1, 2, 3, 3] x) => (float[1, 2, 6, 6] y) {
            sizes = Constant <value_ints = [1, 2, 6, 6]> ()
            y = Resize <mode = "nearest"> (x, , , sizes) }""",
        0,
        0,
    ),
    "Concat": (
        "g (float[1, 2] x, float[1, 3] z) => (float[1, 5] y) { y = Concat <axis = 1> (x, z) }",
        0, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_counted_by_hand(name: str) -> None:
    text, mult_adds, flops = CASES[name]
    count = _count(text)
    assert (count.mult_adds, count.flops) == (mult_adds, flops)


def test_our_functions_are_counted() -> None:
    model = parse_static("g (float[1, 4, 2, 2] x) => (float[1, 4, 2, 2] y) { y = Sigmoid (x) }")
    node = next(iter(model.graph))
    add_function(model, "Silu")
    node.domain, node.op_type = DOMAIN, "Silu"
    assert count_node(node).flops == 5 * 16


def test_an_op_outside_of_the_set_has_no_count_rather_than_none_of_anything() -> None:
    assert _count("g (float[4] x) => (float[4] y) { y = Sin (x) }") is None


def test_a_slice_reads_what_it_writes_and_a_reshape_nothing() -> None:
    picked = _count("""g (float[1, 8] x) => (float[1, 2] y) {
        starts = Constant <value_ints = [0]> ()
        ends = Constant <value_ints = [2]> ()
        axes = Constant <value_ints = [1]> ()
        y = Slice (x, starts, ends, axes) }""")
    assert picked.reads_outputs_only
    view = _count("""g (float[1, 8] x) => (float[2, 4] y) {
        shape = Constant <value_ints = [2, 4]> ()
        y = Reshape (x, shape) }""")
    assert view.is_view


BATCHNORM = """g (float[1, 3, 4, 4] x, float[5, 3, 1, 1] W, float[5] S, float[5] B,
    float[5] Mean, float[5] Var) => (float[1, 5, 4, 4] y) {
    c = Conv <kernel_shape = [1, 1]> (x, W)
    y = BatchNormalization (c, S, B, Mean, Var) }"""


def test_statistics_of_a_batchnorm_are_no_parameters() -> None:
    convolution, norm = parse_static(BATCHNORM).graph
    assert [v.name for v in parameters_of(convolution)] == ["W"]
    assert [v.name for v in parameters_of(norm)] == ["S", "B"]
    assert [v.name for v in data_inputs(norm)] == ["c"]


def test_the_zero_bias_that_an_exporter_adds_before_a_batchnorm_is_none() -> None:
    import numpy as np
    import onnx_ir as ir

    with_bias = BATCHNORM.replace("float[5] S,", "float[5] Z, float[5] S,").replace(
        "(x, W)", "(x, W, Z)"
    )
    model = parse_static(with_bias)
    convolution = next(iter(model.graph))
    assert [v.name for v in parameters_of(convolution)] == ["W", "Z"]
    assert count_node(convolution).flops == 2 * 5 * 16 * 3 + 5 * 16
    zero = model.graph.initializers["Z"]
    zero.const_value = ir.tensor(np.zeros(5, np.float32))
    assert [v.name for v in parameters_of(convolution)] == ["W"]
    assert count_node(convolution).flops == 2 * 5 * 16 * 3


def test_a_scalar_constant_is_no_parameter() -> None:
    model = parse_static("""g (float[1, 4] x, float[1] Scale, float[4] Shift) => (float[1, 4] y) {
        z = Mul (x, Scale)
        y = Add (z, Shift) }""")
    scale, shift = model.graph
    assert parameters_of(scale) == []
    assert [v.name for v in parameters_of(shift)] == ["Shift"]
