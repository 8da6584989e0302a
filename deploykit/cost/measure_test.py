"""Measured times: each layer in a separate file, on the real runtime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from deploykit.cost.measure import measure_profile
from deploykit.cost.profile import fused_stage, profile_stages
from deploykit.cost.split_layers import split_layers
from deploykit.errors import RunnerError, UserError
from deploykit.flow.convert import quantize_for_target
from deploykit.flow.plan import ConvertRequest
from deploykit.graph.qdq import has_qdq
from deploykit.model import Model, Precision
from deploykit.target import find_target
from deploykit_testing.graphs import as_model, parse, run

NETWORK = """g (float[1, 4, 8, 8] x, float[8, 4, 1, 1] W, float[8] B, float[8, 8, 3, 3] V,
    float[5, 8] L) => (float[1, 5] y) {
    axes = Constant <value_ints = [2, 3]> ()
    shape = Constant <value_ints = [1, 8]> ()
    a = Conv (x, W, B)
    r = Relu (a)
    c = Conv <pads = [1, 1, 1, 1]> (r, V)
    g = Sigmoid (c)
    s = Mul (c, g)
    t = Add (s, r)
    m = ReduceMean <keepdims = 1> (t, axes)
    f = Reshape (m, shape)
    y = Gemm <transB = 1> (f, L) }"""


def _fused(text: str = NETWORK) -> Model:
    return fused_stage(as_model(parse(text)))


def test_layers_chained_by_hand_give_what_the_whole_gives() -> None:
    fused = _fused()
    feed = np.random.default_rng(0).normal(0, 1, (1, 4, 8, 8)).astype(np.float32)
    (expected,) = run(fused.graph, {"x": feed})
    values = {"x": feed}
    for layer in split_layers(fused.graph):
        assert layer is not None
        names = [value.name for value in layer.graph.outputs]
        feeds = {value.name: values[value.name] for value in layer.graph.inputs}
        values.update(zip(names, run(layer, feeds), strict=True))
    np.testing.assert_allclose(values["y"], expected, rtol=0, atol=1e-5)


def test_splitting_leaves_the_model_alone() -> None:
    fused = _fused()
    before = ir.to_proto(fused.graph).SerializeToString(deterministic=True)
    split_layers(fused.graph)
    assert ir.to_proto(fused.graph).SerializeToString(deterministic=True) == before


def _quantized(tmp_path: Path) -> Model:
    data = np.random.default_rng(0).normal(0, 1, (16, 4, 8, 8)).astype(np.float32)
    np.save(tmp_path / "data.npy", data)
    request = ConvertRequest(calibration=tmp_path / "data.npy", allow_suspicious=True)
    return quantize_for_target(_fused(), find_target("tflite"), request)


def test_quantized_layers_chained_by_hand_give_what_the_whole_gives(tmp_path: Path) -> None:
    """Bit for bit: each layer rounds its inputs to the scales that they have already."""
    stage = _quantized(tmp_path)
    feed = np.load(tmp_path / "data.npy")[:1]
    (expected,) = run(stage.graph, {"x": feed})
    values = {"x": feed}
    layers = split_layers(stage.graph)
    assert len(layers) == len(profile_stages(_fused(), stage, Precision.INT8).after.layers)
    for layer in layers:
        assert layer is not None
        assert has_qdq(layer)
        feeds = {v.name: values[v.name.removesuffix("_float")] for v in layer.graph.inputs}
        results = run(layer, feeds)
        for value, result in zip(layer.graph.outputs, results, strict=True):
            values[value.name.removesuffix("_dequantized")] = result
    assert np.array_equal(values["y"], expected)


def test_every_int8_layer_is_timed(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    stage = _quantized(tmp_path)
    profile = profile_stages(_fused(), stage, Precision.INT8)
    measured = measure_profile(
        profile, stage, "tflite", precision=Precision.INT8, rounds=3
    ).measurement
    assert measured is not None
    names = {layer.name for layer in profile.after.layers if not layer.is_view}
    assert set(measured.layer_us) == names
    assert min(measured.layer_us.values()) > 0


def test_every_layer_and_the_whole_are_timed() -> None:
    pytest.importorskip("ai_edge_litert")
    fused = _fused()
    profile = profile_stages(fused, fused, Precision.FP32)
    measured = measure_profile(profile, fused, "tflite", rounds=3).measurement
    assert measured is not None
    assert set(measured.layer_us) | set(measured.unmeasured) == {
        layer.name for layer in profile.after.layers
    }
    views = {layer.name for layer in profile.after.layers if layer.is_view}
    assert set(measured.unmeasured) == views
    assert min(measured.layer_us.values()) > 0
    assert measured.whole_us > 0
    assert "LiteRT" in measured.runtime
    assert "1 thread" in measured.runtime


def test_a_target_without_a_clock_is_a_user_error(monkeypatch: pytest.MonkeyPatch) -> None:
    fused = _fused()
    monkeypatch.setattr(
        "deploykit.target.find_target",
        lambda name: replace(find_target("tflite"), file_measurer=""),
    )
    profile = profile_stages(fused, fused, Precision.FP32)
    with pytest.raises(UserError, match="cannot measure"):
        measure_profile(profile, fused, "other")


def test_too_little_time_is_an_error_that_says_so() -> None:
    pytest.importorskip("ai_edge_litert")
    fused = _fused()
    profile = profile_stages(fused, fused, Precision.FP32)
    with pytest.raises(RunnerError, match="longer than 0.01 s"):
        measure_profile(profile, fused, "tflite", timeout_s=0.01)


def test_a_quantized_model_is_refused() -> None:
    fused = _fused("""g (float[1, 8] x) => (float[1, 8] y) {
        s = Constant <value_float = 0.1> ()
        z = Constant <value = int8 {0}> ()
        q = QuantizeLinear (x, s, z)
        d = DequantizeLinear (q, s, z)
        y = Relu (d) }""")
    profile = profile_stages(fused, fused, Precision.FP32)
    with pytest.raises(UserError, match="quantized already"):
        measure_profile(profile, fused, "tflite")
