"""Dilations of ones are omitted, so that ONNX Runtime's integer kernel takes the pool."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from deploykit.model import Precision
from deploykit.target import ArtifactRequest
from deploykit_onnx import TARGET
from deploykit_onnx.omit_pool_dilations import OmitPoolDilations
from deploykit_quantize.quantizer import quantize_model
from deploykit_testing.graphs import assert_same_numbers, parse, prepare, reasons
from deploykit_testing.quantized import calibrate, fused, samples_of

POOL = """g (float[1, 4, 8, 8] x) => (float[1, 4, 4, 4] y) {{
    y = AveragePool <kernel_shape = [2, 2], strides = [2, 2]{attribute}> (x) }}"""


def test_ones_are_left_out() -> None:
    model = prepare(parse(POOL.format(attribute=", dilations = [1, 1]")))
    before = model.clone()
    OmitPoolDilations().apply(model)
    (node,) = model.graph
    assert "dilations" not in node.attributes
    assert "strides" in node.attributes
    assert_same_numbers(before, model)


def test_others_stay() -> None:
    text = "g (float[1, 4, 8, 8] x) => (float[1, 4, 6, 6] y) { y = AveragePool"
    model = parse(text + " <kernel_shape = [2, 2], dilations = [2, 2]> (x) }")
    notes = OmitPoolDilations().apply(model).notes
    assert reasons(notes) == ["dilations [2, 2]"]
    assert "dilations" in model.graph[0].attributes


def test_a_quantized_pool_runs_in_integers() -> None:
    text = """g (float[1, 3, 8, 8] x, float[4, 3, 1, 1] W) => (float[1, 4, 4, 4] y) {
        c = Conv <kernel_shape = [1, 1]> (x, W)
        y = AveragePool <kernel_shape = [2, 2], strides = [2, 2], dilations = [1, 1],
            pads = [0, 0, 0, 0], ceil_mode = 0> (c) }"""
    model = fused(text)
    # Without it integer sums saturate on an x86 CPU that has no VNNI.
    options = {"reduce_range": "yes"}
    policy = TARGET.policy(Precision.INT8, options)
    assert policy is not None
    stage = quantize_model(model, policy, calibrate(model))
    artifact = TARGET.write(stage, ArtifactRequest(Precision.INT8, options))

    x = samples_of(model, 1)
    session = onnxruntime.InferenceSession(artifact.data, providers=["CPUExecutionProvider"])
    plain = onnxruntime.SessionOptions()
    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    simulated = onnxruntime.InferenceSession(stage.serialized(), plain)
    step = artifact.output_steps["y"].scale[0]
    found, wanted = (s.run(None, {"x": x})[0] for s in (session, simulated))
    assert float(np.abs(found - wanted).max()) <= 1.001 * step
    with pytest.raises(Exception, match="dilations"):  # without the pass ONNX Runtime refuses it
        onnxruntime.InferenceSession(stage.serialized(), providers=["CPUExecutionProvider"])
