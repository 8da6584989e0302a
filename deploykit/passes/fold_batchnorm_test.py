"""BatchNormalization folding: numbers on random graphs, structure, and every reason."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.graph.provenance import MODULE_KEY
from deploykit.model import Stage
from deploykit.passes.fold_batchnorm import FoldBatchnorm
from deploykit.passes.pipeline import advance
from deploykit_testing.graphs import (
    apply,
    as_model,
    assert_described,
    assert_same_numbers,
    check,
    ops,
    parse,
    prepare,
    reasons,
)

_PARAMETERS = "float[{c}] Gamma, float[{c}] Beta, float[{c}] Mean, float[{c}] Var"
_BN = "BatchNormalization <epsilon = {e}> ({x}, Gamma, Beta, Mean, Var)"


def _bn(value: str, epsilon: float = 1e-3) -> str:
    return _BN.format(x=value, e=epsilon)


def _text(body: str, inputs: str, channels: int, output: str) -> str:
    return f"g ({inputs}, {_PARAMETERS.format(c=channels)}) => ({output}) {{ {body} }}"


@settings(max_examples=25, deadline=None)
@given(
    groups=st.integers(1, 4),
    inner=st.integers(1, 3),
    outer=st.integers(1, 3),
    kernel=st.sampled_from([1, 2, 3]),
    bias=st.booleans(),
    transposed=st.booleans(),
    epsilon=st.sampled_from([1e-5, 1e-3, 0.1]),
    seed=st.integers(0, 2**16),
)
def test_folds_into_any_convolution(
    groups: int,
    inner: int,
    outer: int,
    kernel: int,
    bias: bool,
    transposed: bool,
    epsilon: float,
    seed: int,
) -> None:
    c_in, c_out = groups * inner, groups * outer
    rows = (c_in, outer) if transposed else (c_out, inner)
    weights = f"float[{rows[0]},{rows[1]},{kernel},{kernel}] W"
    operands = "x, W, B" if bias else "x, W"
    extra = f", float[{c_out}] B" if bias else ""
    op = "ConvTranspose" if transposed else "Conv"
    body = f"""c = {op} <group = {groups}, strides = [2, 2], pads = [0, 0, 0, 0]> ({operands})
        y = {_bn("c", epsilon)}"""
    inputs = f"float[2,{c_in},6,5] x, {weights}{extra}"
    text = _text(body, inputs, c_out, f"float[N,{c_out},H,V] y")
    assert check(FoldBatchnorm(), text, [op], seed=seed) == []


def test_folds_into_gemm() -> None:
    body = f"c = Gemm <transB = 1> (x, W, B) y = {_bn('c')}"
    text = _text(body, "float[3,4] x, float[5,4] W, float[5] B", 5, "float[3,5] y")
    assert check(FoldBatchnorm(), text, ["Gemm"]) == []


def test_output_keeps_the_name_of_the_batchnorm_and_the_module_of_the_conv() -> None:
    body = f"c = Conv (x, W) b = {_bn('c')} y = Relu (b)"
    model = prepare(parse(_text(body, "float[1,2,4,4] x, float[3,2,1,1] W", 3, "float[1,3,4,4] y")))
    model.graph[0].metadata_props[MODULE_KEY] = "features.0"
    apply(FoldBatchnorm(), model)
    assert [n.outputs[0].name for n in model.graph] == ["b", "y"]
    assert model.graph[0].metadata_props[MODULE_KEY] == "features.0"


def test_shared_weights_are_not_modified() -> None:
    body = f"c = Conv (x, W) b = {_bn('c')} d = Conv (x, W) y = Add (b, d)"
    text = _text(body, "float[1,2,4,4] x, float[3,2,3,3] W", 3, "float[1,3,2,2] y")
    before = prepare(parse(text))
    after = before.clone()
    original = before.graph.initializers["W"].const_value
    assert original is not None
    kept = original.numpy().copy()
    apply(FoldBatchnorm(), after)
    assert ops(after) == ["Conv", "Conv", "Add"]
    assert_same_numbers(before, after)
    assert after.graph.initializers["W"].const_value is original
    np.testing.assert_array_equal(original.numpy(), kept)


def test_two_batchnorms_in_a_row_fold_both() -> None:
    body = f"c = Conv (x, W) b = {_bn('c')} y = {_bn('b')}"
    text = _text(body, "float[1,2,4,4] x, float[3,2,3,3] W", 3, "float[1,3,2,2] y")
    assert check(FoldBatchnorm(), text, ["Conv"]) == []


@pytest.mark.parametrize(
    ("body", "left", "reason"),
    [
        (
            f"c = Conv (x, W) b = {_bn('c')} y = Add (b, c)",
            ["Conv", "Mul", "Add", "Add"],
            "a value in between has 2 readers",
        ),
        (
            f"c = Relu (x) d = Conv (c, W) e = Relu (d) y = {_bn('e')}",
            ["Relu", "Conv", "Relu", "Mul", "Add"],
            "there is no linear op before it, but Relu",
        ),
        (
            f"e = Conv (x, W) f = Conv (x, e) y = {_bn('f')}",
            ["Conv", "Conv", "Mul", "Add"],
            "the weights of Conv are not constant",
        ),
    ],
)
def test_becomes_mul_and_add_with_a_reason(body: str, left: list[str], reason: str) -> None:
    text = _text(body, "float[3,3,1,1] x, float[3,3,1,1] W", 3, "float[3,3,1,1] y")
    assert check(FoldBatchnorm(), text, left) == [f"Mul and Add instead: {reason}"]


def test_a_computed_bias_is_a_reason() -> None:
    body = f"b = ReduceMean <keepdims = 0> (x, axes) c = Conv (x, W, b) y = {_bn('c')}"
    text = _text(body, "float[1,3,4,4] x, float[3,3,1,1] W", 3, "float[1,3,4,4] y")
    text = text.replace("{ b =", "<int64[3] axes = {0, 2, 3}> { b =")
    left = check(FoldBatchnorm(), text, ["ReduceMean", "Conv", "Mul", "Add"])
    assert left == ["Mul and Add instead: the bias of Conv is not constant"]


def test_an_output_of_the_graph_is_a_reason() -> None:
    body = f"c = Conv (x, W) y = {_bn('c')}"
    text = _text(
        body, "float[1,2,4,4] x, float[3,2,1,1] W", 3, "float[1,3,4,4] c, float[1,3,4,4] y"
    )
    left = check(FoldBatchnorm(), text, ["Conv", "Mul", "Add"])
    assert left == ["Mul and Add instead: a value in between is an output of the graph"]


def test_at_the_input_and_on_other_ranks() -> None:
    for shape in ("2,3,4,4", "2,3", "2,3,5"):
        text = _text(f"y = {_bn('x')}", f"float[{shape}] x", 3, f"float[{shape}] y")
        left = check(FoldBatchnorm(), text, ["Mul", "Add"])
        assert left == [
            "Mul and Add instead: there is no linear op before it, but an input of the graph"
        ]


def test_training_mode_stays() -> None:
    body = """c = Conv (x, W)
        y, m, v = BatchNormalization <training_mode = 1> (c, Gamma, Beta, Mean, Var)"""
    model = prepare(parse(_text(body, "float[1,2,4,4] x, float[3,2,1,1] W", 3, "float[1,3,4,4] y")))
    notes = apply(FoldBatchnorm(), model)
    assert ops(model) == ["Conv", "BatchNormalization"]
    assert reasons(notes) == ["it is in training mode: export the model in evaluation mode"]


def test_computed_parameters_stay() -> None:
    body = "g = Relu (s) c = Conv (x, W) y = BatchNormalization (c, g, Beta, Mean, Var)"
    text = _text(body, "float[1,2,4,4] x, float[3] s, float[3,2,1,1] W", 3, "float[1,3,4,4] y")
    model = prepare(parse(text))
    notes = apply(FoldBatchnorm(), model)
    assert ops(model) == ["Relu", "Conv", "BatchNormalization"]
    assert reasons(notes) == ["its parameters are not constant"]


def test_fused_stage_has_no_batchnorm_and_the_same_numbers() -> None:
    body = f"""c = Conv <pads = [1, 1, 1, 1]> (x, W) b = {_bn("c")} r = Relu (b)
        d = {_bn("r")} e = Conv <group = 3, pads = [1, 1, 1, 1]> (d, Depthwise) y = {_bn("e")}"""
    inputs = "float[1,2,6,6] x, float[3,2,3,3] W, float[3,1,3,3] Depthwise"
    exported = parse(_text(body, inputs, 3, "float[1,3,6,6] y"))
    fused = advance(as_model(exported), Stage.FUSED).graph
    assert ops(fused) == ["Conv", "Relu", "Mul", "Add", "Conv"]
    assert_described(fused)
    assert_same_numbers(exported, fused)
