"""Activations with one scale a channel: one scale covers them, and nothing saturates anew."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.graph.read_qdq import is_dequantize, is_quantize, read_params
from deploykit.passes.infer_shapes import InferShapes
from deploykit.tensors import QuantParams
from deploykit_quantize.join_channel_scales import cover_channels, join_channel_scales
from deploykit_testing.graphs import HEADER, reasons, run

TEXT = """g (float[1, 3, 4, 4] x) => (float[1, 3, 4, 4] y, float[1, 3, 4, 4] z)
  <float[3] s = {0.01, 0.02, 0.005}, uint8[3] o = {0, 0, 0}, float t = {%s}, uint8 p = {0}> {
    r = Relu (x)
    q = QuantizeLinear <axis = 1> (r, s, o)
    y = DequantizeLinear <axis = 1> (q, s, o)
    k = QuantizeLinear (r, t, p)
    z = DequantizeLinear (k, t, p) }"""

SCALES = st.lists(st.floats(1e-4, 10.0), min_size=2, max_size=6)


def model_of(sibling: float) -> ir.Model:
    model = ir.from_proto(onnx.parser.parse_model(HEADER + TEXT % sibling))
    InferShapes().apply(model)
    return model


@given(SCALES, st.sampled_from(["int8", "uint8"]), st.randoms(use_true_random=False))
def test_every_real_of_every_channel_is_covered(
    scales: list[float], dtype: str, rng: object
) -> None:
    info = np.iinfo(dtype)
    zeros = [rng.randint(int(info.min), int(info.max)) for _ in scales]  # type: ignore[attr-defined]
    params = QuantParams(tuple(scales), tuple(zeros), dtype, axis=1)
    joined = cover_channels(params)
    assert joined.axis is None
    low, high = (
        joined.scale[0] * (int(end) - joined.zero_point[0]) for end in (info.min, info.max)
    )
    for scale, zero in zip(scales, zeros, strict=True):
        ends = (scale * (int(end) - zero) for end in (info.min, info.max))
        for real in ends:
            assert low - joined.scale[0] <= real <= high + joined.scale[0]


def test_a_symmetric_activation_stays_symmetric() -> None:
    params = QuantParams((0.5, 0.25), (128, 128), "uint8", axis=1)
    assert cover_channels(params) == QuantParams((0.5,), (128,), "uint8")


def test_q_and_dq_have_one_scale_afterwards() -> None:
    model = model_of(0.5)
    notes = join_channel_scales(model.graph)
    assert reasons(notes, matched=True) == ["3 scales > one of 0.02"]
    for node in model.graph:
        if is_quantize(node) or is_dequantize(node):
            assert read_params(node).axis is None
    onnx.checker.check_model(ir.to_proto(model))
    x = np.random.default_rng(0).uniform(0, 1, (1, 3, 4, 4)).astype(np.float32)
    found, _ = run(model, {"x": x})
    assert float(np.abs(found - x).max()) <= 0.01 + 1e-6  # half a step


@pytest.mark.parametrize(("sibling", "taken"), [(0.0201, True), (0.03, False)])
def test_nearly_the_scale_of_another_reader_is_taken(sibling: float, taken: bool) -> None:
    model = model_of(sibling)
    join_channel_scales(model.graph)
    params = [read_params(node) for node in model.graph if is_quantize(node)]
    assert (params[0] == params[1]) is taken
