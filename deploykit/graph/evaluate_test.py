"""Constant nodes computed by numpy are what ONNX Runtime computes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from deploykit.graph.evaluate import EVALUATORS, CannotEvaluate, evaluate
from deploykit.graph.reading import constant_array
from deploykit.tensors import Array
from deploykit_testing.graphs import parse, run

_CONSTANTS = """float[2,3] a = {1, -2, 3, -4, 5, 6}, float[3] b = {0.5, 2, 4}, float s = {2},
    float[2,3] pos = {1, 2, 3, 4, 5, 6}, int64[4] i = {7, -7, 9, -9}, int64[4] j = {2, 2, -4, 4},
    int64[2] shape = {3, 2}, int64[2] keep = {0, -1}, int64[1] axis = {1}, int64[1] one = {1},
    int64[1] two = {2}, int64[1] big = {99}, int64[1] neg = {-1}, int64[1] low = {-99},
    int64[3] wide = {2, 1, 3}, int64 start = {1}, int64 limit = {9}, int64 delta = {3},
    int64[2] sizes = {1, 2}, float[1,2,1] thin = {1, 2}, bool[2] t = {1, 0}, bool[2] f = {1, 1}"""

_NODES = [
    "y = Identity (a)",
    "y = Shape (a)",
    "y = Shape <start = -1> (a)",
    "y = Size (a)",
    "y = Cast <to = 7> (a)",
    "y = CastLike (a, i)",
    "y = Reshape (a, shape)",
    "y = Reshape (a, keep)",
    "y = Flatten <axis = 0> (a)",
    "y = Unsqueeze (a, axis)",
    "y = Squeeze (thin)",
    "y = Squeeze (thin, neg)",
    "y = Transpose (a)",
    "y = Transpose <perm = [1, 0]> (a)",
    "y = Concat <axis = -1> (a, a)",
    "y = Slice (a, one, big, axis)",
    "y = Slice (a, neg, low, axis, neg)",
    "y = Slice (a, one, big, axis, two)",
    "y = Gather <axis = 1> (a, sizes)",
    "y = Expand (b, wide)",
    "y = ConstantOfShape <value = float[1] {3}> (shape)",
    "y = Range (start, limit, delta)",
    "y, z = Split <axis = 1> (a, sizes)",
    "y, z = Split <axis = 1, num_outputs = 2> (a)",
    "y = Add (a, b)",
    "y = Sub (a, s)",
    "y = Mul (a, b)",
    "y = Div (a, b)",
    "y = Div (i, j)",
    "y = Pow (pos, s)",
    "y = Equal (i, j)",
    "y = Less (a, b)",
    "y = LessOrEqual (i, j)",
    "y = Greater (a, b)",
    "y = GreaterOrEqual (i, j)",
    "y = And (t, f)",
    "y = Or (t, f)",
    "y = Xor (t, f)",
    "y = Not (t)",
    "y = Neg (a)",
    "y = Abs (i)",
    "y = Sqrt (pos)",
    "y = Exp (b)",
    "y = Log (pos)",
    "y = Floor (b)",
    "y = Ceil (b)",
    "y = Reciprocal (b)",
    "y = Min (a, b, s)",
    "y = Max (a, b)",
    "y = Where (t, neg, two)",
    "y = ReduceProd <keepdims = 0> (a, axis)",
    "y = ReduceSum (a)",
    "y = ReduceMax (a, neg)",
    "y = ReduceMin <keepdims = 0> (a)",
    "y = ReduceSum <noop_with_empty_axes = 1> (a)",
    "y = Gemm <transB = 1, alpha = 0.5> (a, a)",
    "y = Gemm <transA = 1, beta = 2.0> (a, a, s)",
    "y = MatMul (a, b)",
]


def _parse(body: str) -> ir.Model:
    outputs = "float[A] z" if body.startswith("y, z") else ""
    header = f"g (float[1] x) => (float[B] y{', ' + outputs if outputs else ''})"
    model = parse(f"{header} <{_CONSTANTS}> {{ {body} }}")
    for value in model.graph.outputs:
        value.shape, value.type = None, None
    return model


def _evaluated(node: ir.Node) -> list[Array]:
    return evaluate(node, [constant_array(v) for v in node.inputs])


@pytest.mark.parametrize("body", _NODES)
def test_is_what_onnx_runtime_computes(body: str) -> None:
    model = _parse(body)
    results = _evaluated(model.graph[0])
    for output, result in zip(model.graph.outputs, results, strict=True):
        output.type = ir.TensorType(ir.DataType.from_numpy(result.dtype))
    expected = run(model, {"x": np.zeros(1, np.float32)})
    for a, b in zip(expected, results, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_every_evaluator_is_tested() -> None:
    tested = {_parse(body).graph[0].op_type for body in _NODES}
    assert set(EVALUATORS) - tested == {"Constant", "Dropout"}  # see fold_constants_test


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("y = Erf (a)", "Erf is not computed"),
        ("y = Gather (a, x)", "not constant"),
        ("y = Reshape (a, x)", "its shape is not constant"),
        ("y = Slice (a, x, one)", "bounds are not constant"),
    ],
)
def test_says_why_not(body: str, reason: str) -> None:
    model = parse(f"g (int64[1] x) => (float[B] y) <{_CONSTANTS}> {{ {body} }}")
    with pytest.raises(CannotEvaluate, match=reason):
        _evaluated(model.graph[0])


def test_a_string_constant() -> None:
    model = parse('g (float[1] x) => (string y) { y = Constant <value_string = "a"> () }')
    with pytest.raises(CannotEvaluate, match="no numbers"):
        _evaluated(model.graph[0])
