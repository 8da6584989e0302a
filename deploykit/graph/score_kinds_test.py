"""The op that makes an output decides what it is."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from deploykit.graph.score_kinds import score_kinds

HEAD = '<ir_version: 9, opset_import: ["" : 20]>\nnet (float[1,4] x, float[4,3] w, float[3] b) => '


@pytest.mark.parametrize(
    ("result", "body", "kind"),
    [
        ("float[1,3] y", "y = MatMul(x, w)", "logits"),
        ("float[1,3] y", "z = MatMul(x, w)  y = Add(z, b)", "logits"),
        ("float[1,3] y", "z = Gemm(x, w, b)  y = Identity(z)", "logits"),
        ("float[1,3] y", "z = MatMul(x, w)  y = Softmax<axis=1>(z)", "probabilities"),
        ("float[1,3] y", "z = MatMul(x, w)  y = Sigmoid(z)", "independent probabilities"),
        ("float[1,3] y", "z = MatMul(x, w)  y = LogSoftmax(z)", "log-probabilities"),
        ("float[1,3] y", "z = MatMul(x, w)  y = Relu(z)", None),
        ("float[1,3] y", "z = MatMul(x, w)  a = Relu(z)  y = Add(z, a)", None),
        ("float[1,3,1,1] y", "z = MatMul(x, w)  a = Softmax(z)  y = Reshape<>(a, s)", None),
    ],
)
def test_kind_of_an_output(result: str, body: str, kind: str | None) -> None:
    body = body.replace("Reshape<>(a, s)", "Unsqueeze(a, s)")
    constant = "s = Constant<value_ints=[2,3]>()  " if "(a, s)" in body else ""
    model = ir.from_onnx_text(f"{HEAD}({result}) {{ {constant}{body} }}")
    assert score_kinds(model.graph).get("y") == kind


def test_quantized_ends_are_looked_through() -> None:
    model = ir.from_onnx_text(
        HEAD + "(float[1,3] y) { z = MatMul(x, w)  p = Softmax<axis=1>(z)"
        " s = Constant<value_float=0.00390625>()  q = QuantizeLinear(p, s)"
        " y = DequantizeLinear(q, s) }"
    )
    assert score_kinds(model.graph) == {"y": "probabilities"}
