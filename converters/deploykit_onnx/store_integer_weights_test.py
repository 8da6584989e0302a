"""Weights that are rounded at each start are stored as the integers that they become."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.graph.read_qdq import is_dequantize
from deploykit.graph.reading import constant_array
from deploykit_onnx.store_integer_weights import StoreIntegerWeights
from deploykit_testing.graphs import parse, run


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), zero=st.integers(-3, 3), per_channel=st.booleans())
def test_the_numbers_stay(seed: int, zero: int, per_channel: bool) -> None:
    rng = np.random.default_rng(seed)
    scale, count = ("{0.02, 0.5, 0.03}", "[3]") if per_channel else ("{0.02}", "")
    zeros = f"{{{zero}, 0, {zero}}}" if per_channel else f"{{{zero}}}"
    axis = "<axis = 0>" if per_channel else ""
    text = f"""g (float[2, 4] x, float[3, 4] W) => (float[2, 3] y)
        <float{count} s = {scale}, int8{count} z = {zeros}> {{
            q = QuantizeLinear {axis} (W, s, z)
            d = DequantizeLinear {axis} (q, s, z)
            y = Gemm <transB = 1> (x, d) }}"""
    model = parse(text, seed=seed)
    feeds = {"x": rng.normal(0, 1, (2, 4)).astype(np.float32)}
    wanted = run(model, feeds)

    result = StoreIntegerWeights().apply(model)

    assert result.changed
    (node,) = [n for n in model.graph if is_dequantize(n)]
    integers = constant_array(node.inputs[0])
    assert integers is not None
    assert integers.dtype == np.int8
    np.testing.assert_array_equal(run(model, feeds)[0], wanted[0])
