"""float16 inside, float32 outside."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from deploykit.errors import DataError
from deploykit.passes.infer_shapes import InferShapes
from deploykit_onnx.half_precision import convert_to_half
from deploykit_testing.graphs import parse, random_feeds, run

TEXT = """g (float[1, 3, 6, 6] x, float[4, 3, 3, 3] W, float[4] B) => (float[1, 4, 4, 4] y)
    <float low = {0.0}, float high = {6.0}> {
    c = Conv <kernel_shape = [3, 3]> (x, W, B)
    y = Clip (c, low, high) }"""


def converted() -> tuple[ir.Model, ir.Model]:
    before = parse(TEXT)
    InferShapes().apply(before)
    after = before.clone()
    convert_to_half(after)
    return before, after


def test_inputs_and_outputs_keep_their_names_and_type() -> None:
    before, after = converted()
    for side in ("inputs", "outputs"):
        for old, new in zip(getattr(before.graph, side), getattr(after.graph, side), strict=True):
            assert (new.name, new.dtype) == (old.name, ir.DataType.FLOAT)


def test_all_that_is_computed_is_float16() -> None:
    _, after = converted()
    assert [node.op_type for node in after.graph] == ["Cast", "Conv", "Clip", "Cast"]
    assert {v.dtype for v in after.graph.initializers.values()} == {ir.DataType.FLOAT16}
    inner = [v for node in after.graph for v in node.outputs if not v.is_graph_output()]
    assert {v.dtype for v in inner} == {ir.DataType.FLOAT16}


def test_numbers_are_off_by_the_rounding_of_float16() -> None:
    before, after = converted()
    feeds = random_feeds(before)
    (wanted,), (found,) = run(before, feeds), run(after, feeds)
    assert found.dtype == np.float32
    error = float(np.abs(found - wanted).max())
    assert 0 < error < 1e-2


def test_a_constant_that_float16_cannot_hold_is_refused() -> None:
    model = parse("g (float[4] x) => (float[4] y) <float big = {70000.0}> { y = Mul (x, big) }")
    with pytest.raises(DataError, match="holds 70000"):
        convert_to_half(model)


def test_an_infinite_bound_stays_one() -> None:
    model = parse("g (float[4] x) => (float[4] y) <float low = {0.0}> { y = Clip (x, low) }")
    model.graph.initializers["low"].const_value = ir.tensor(np.float32(-np.inf))
    convert_to_half(model)
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    x = np.array([-2, -1, 0, 1], np.float32)
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], x)
