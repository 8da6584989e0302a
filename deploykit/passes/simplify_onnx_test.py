"""onnxsim without its package and without the weights."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from deploykit.errors import UnsupportedModelError
from deploykit.graph.provenance import MODULE_KEY, SOURCE_KEY
from deploykit.graph.skeleton import serialize_skeleton
from deploykit.passes import simplify_onnx
from deploykit.passes.pipeline import simplify_model
from deploykit_testing.graphs import (
    as_model,
    assert_described,
    assert_same_numbers,
    ops,
    parse,
    run,
)

_OLD = '<ir_version: 7, opset_import: ["" : 11]>\n'

_DYNAMIC_RESHAPE = """g (float[2,3,4,4] x, float[5,3,1,1] W, float[80,7] M) => (float[2,7] y) {
    c = Conv (x, W) s = Shape (c) i = Constant <value = int64 {0}> () n = Gather (s, i)
    a = Constant <value = int64[1] {0}> () u = Unsqueeze <axes = [0]> (n)
    m = Constant <value = int64[1] {-1}> () t = Concat <axis = 0> (u, m)
    r = Reshape (c, t) y = MatMul (r, M) }"""


def _simplified(model: ir.Model) -> ir.Model:
    return simplify_model(as_model(model)).graph


def test_old_operator_set_and_computed_shapes() -> None:
    before = parse(_DYNAMIC_RESHAPE, header=_OLD)
    after = _simplified(before)
    assert ops(after) == ["Conv", "Reshape", "MatMul"]
    assert after.opset_imports[""] == 20
    assert_described(after)
    assert_same_numbers(before, after)


def test_weights_are_the_same_objects_and_the_source_is_untouched() -> None:
    before = parse(_DYNAMIC_RESHAPE, header=_OLD)
    data = ir.to_proto(before).SerializeToString(deterministic=True)
    after = _simplified(before)
    kept, original = after.graph.initializers["M"], before.graph.initializers["M"]
    assert kept.const_value is original.const_value
    assert ir.to_proto(before).SerializeToString(deterministic=True) == data
    assert [v.name for v in after.graph.inputs] == ["x"]


def test_equals_onnxsim_with_all_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    text = """g (float[1,8,6,6] x, float[8,4,3,3] W, float[8] B, float[8,8,1,1] V)
        => (float[1,8,6,6] y) <float[4] s = {1, 1, 2, 2}> {
        c = Conv <group = 2, pads = [1, 1, 1, 1]> (x, W, B) i = Identity (c) r = Relu (i)
        u = Resize <mode = "nearest"> (r, , s) p = MaxPool <kernel_shape = [2, 2],
        strides = [2, 2]> (u) d = Conv (p, V) y = Add (d, x) }"""
    before = parse(text)
    with_skeleton = _simplified(before)
    monkeypatch.setattr(
        simplify_onnx,
        "serialize_skeleton",
        lambda model: (ir.to_proto(model).SerializeToString(), {}),
    )
    with_weights = _simplified(before)
    assert ops(with_skeleton) == ops(with_weights)
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 8, 6, 6)).astype(np.float32)}
    np.testing.assert_array_equal(run(with_skeleton, feeds)[0], run(with_weights, feeds)[0])


def test_constant_subgraphs_of_weights_are_folded() -> None:
    # Weight normalization: w = g v / |v|, an op that only ONNX Runtime computes.
    text = """g (float[1,3,4,4] x, float[4,3,3,3] V, float[4,1,1,1] G) => (float[1,4,2,2] y)
        <int64[3] axes = {1, 2, 3}> {
        n = ReduceL2 (V, axes) d = Div (V, n) w = Mul (d, G) y = Conv (x, w) }"""
    before = parse(text)
    after = _simplified(before)
    assert ops(after) == ["Conv"]
    assert_same_numbers(before, after)


def test_provenance_and_node_names_come_back() -> None:
    text = """g (float[1,3,4,4] x, float[4,3,3,3] W) => (float[1,4,2,2] y) {
        c = Conv (x, W) i = Identity (c) y = Relu (i) }"""
    before = parse(text)
    conv = before.graph[0]
    conv.name = "first conv"
    conv.metadata_props.update({MODULE_KEY: "features.0", SOURCE_KEY: "net.py:12"})
    after = _simplified(before)
    assert ops(after) == ["Conv", "Relu"]
    assert after.graph[0].name == "first conv"
    assert after.graph[0].metadata_props == {MODULE_KEY: "features.0", SOURCE_KEY: "net.py:12"}
    assert not after.metadata_props
    assert not after.graph.metadata_props


def test_two_runs_give_the_same_bytes() -> None:
    model = as_model(parse(_DYNAMIC_RESHAPE, header=_OLD))
    assert simplify_model(model).serialized() == simplify_model(model).serialized()


def test_a_node_without_its_input_is_a_refusal() -> None:
    model = parse("g (float[2] x) => (float[2] y) { y = Neg (x) }")
    model.graph[0].op_type = "Add"
    with pytest.raises(UnsupportedModelError, match=r"onnxsim cannot simplify.*Add"):
        simplify_model(as_model(model))


def test_an_op_that_is_newer_than_the_operator_set_is_a_refusal() -> None:
    header = '<ir_version: 10, opset_import: ["" : 24]>'
    model = parse("g (float[2] x) => (float[2] y) { y = Swish (x) }", header=header)
    with pytest.raises(UnsupportedModelError, match="No Previous Version of Swish") as caught:
        simplify_model(as_model(model))
    assert "opset_version=20" in str(caught.value)
    assert ".h:" not in caught.value.found


def test_a_custom_op_passes_through() -> None:
    header = '<ir_version: 9, opset_import: ["" : 17, "com.example" : 1]>'
    model = parse("g (float[2] x) => (float[2] y) { y = com.example.Bar (x) }", header=header)
    assert ops(_simplified(model)) == ["Bar"]


def test_skeleton_keeps_what_foldable_nodes_read() -> None:
    text = """g (float[1,3,4,4] x, float[4,3,3,3] W, float[4,3,3,3] V) => (float[1,4,2,2] y) {
        n = Erf (V) c = Conv (x, n) d = Conv (x, W) y = Add (c, d) }"""
    model = parse(text)
    names = list(model.graph.initializers)
    data, weights = serialize_skeleton(model)
    assert sorted(weights) == ["W"]
    proto = onnx.load_from_string(data)
    assert [i.name for i in proto.graph.initializer] == ["V"]
    assert [i.name for i in proto.graph.input] == ["x", "W"]
    assert list(model.graph.initializers) == names
    assert [v.name for v in model.graph.inputs] == ["x"]
