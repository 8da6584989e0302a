from __future__ import annotations

import numpy as np
import pytest

from deploykit.errors import ContractError
from deploykit.noise import VALUE, WEIGHTS
from deploykit_quantize.attribute_noise import attribute_noise, switch_roundings
from deploykit_quantize.method import Calibration, Method, Quantization
from deploykit_quantize.prepare.correct_bias import CorrectBias
from deploykit_quantize.prepare.equalize_activations import EqualizeActivations
from deploykit_quantize.round.keep_sums import KeepSums
from deploykit_testing.quantized import (
    NETWORK,
    POLICY,
    as_data,
    calibrate,
    fused,
    run_values,
    samples_of,
)

METHODS = [
    Method(),
    Method(EqualizeActivations(), rounding=KeepSums(), bias=CorrectBias()),
]


@pytest.mark.parametrize("method", METHODS, ids=["minmax", "equalize"])
def test_all_switches_off_is_the_float_model_and_all_on_the_quantized_one(method: Method) -> None:
    model = fused(NETWORK)
    calibration = Calibration(calibrate(model), as_data(samples_of(model, 32)))
    quantization = Quantization(model, POLICY, calibration)
    stage = quantization.quantize(method)
    switched = switch_roundings(quantization.prepare(method), stage)
    count = len(switched.sources)
    layers = [s.name for s in switched.sources if s.kind == WEIGHTS]
    assert sorted(layers) == sorted(["c0", "c1", "c2", "c3", "c4", "g", "y"])
    assert {"x", "r0", "y"} <= {s.name for s in switched.sources if s.kind == VALUE}

    for sample in samples_of(model, 3, seed=9):
        feed = {"x": sample[None]}
        (off,) = switched.run(feed, np.zeros(count, bool))
        (on,) = switched.run(feed, np.ones(count, bool))
        np.testing.assert_allclose(off, run_values(model.graph, feed)["y"], rtol=1e-4, atol=1e-5)
        step = float(np.abs(on).max()) / 50
        np.testing.assert_allclose(on, run_values(stage.graph, feed)["y"], atol=step)


def test_the_layer_whose_weights_are_ruined_has_most_of_the_noise() -> None:
    model = fused(NETWORK)
    quantization = Quantization(model, POLICY, Calibration(calibrate(model)))
    stage = quantization.quantize(Method())
    weights = stage.graph.graph.initializers["W2_quantized"]
    integers = weights.const_value.numpy()  # type: ignore[union-attr]
    import onnx_ir as ir

    weights.const_value = ir.Tensor(np.clip(integers, -8, 8), name=weights.name)
    switched = switch_roundings(quantization.prepare(Method()), stage)
    samples = [{"x": sample[None]} for sample in samples_of(model, 4)]
    found = attribute_noise(switched, samples)
    assert (found.sources[0].kind, found.sources[0].name) == (WEIGHTS, "c2")
    assert found.sources[0].share > 0.5
    assert sum(s.share for s in found.sources) == pytest.approx(1.0)
    assert found.sources[0].snr_db == pytest.approx(found.snr_db, abs=3.0)
    assert found.sample_db.shape == (4,)


def test_a_stage_of_another_model_is_refused() -> None:
    model = fused(NETWORK)
    stage = Quantization(model, POLICY, Calibration(calibrate(model))).quantize(Method())
    other = fused("agraph (float[1, 3, 4, 4] x) => (float[1, 3, 4, 4] y) { y = Relu (x) }")
    with pytest.raises(ContractError, match="not in the prepared stage"):
        switch_roundings(other, stage)
