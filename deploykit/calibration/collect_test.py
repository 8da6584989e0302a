from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from deploykit.calibration.collect import collect_statistics, fingerprint_model
from deploykit.calibration.data import CalibrationData
from deploykit.calibration.table import CalibrationTable
from deploykit.errors import DataError
from deploykit.model import Model, Stage
from deploykit.preprocess import Preprocess
from deploykit_testing.graphs import as_model, parse
from deploykit_testing.quantized import (
    NETWORK,
    as_data,
    fused,
    run_values,
    samples_of,
)


def relu() -> Model:
    text = "agraph (float[1, 3, 8, 8] x) => (float[1, 3, 8, 8] y) { y = Relu (x) }"
    return as_model(parse(text), Stage.FUSED)


def test_every_value_has_the_statistics_of_all_samples() -> None:
    model = fused(NETWORK)
    samples = samples_of(model, 20)
    table = collect_statistics(model, as_data(samples))
    runs = [run_values(model.graph, {"x": s[None]}) for s in samples]
    values = {name: np.stack([run[name] for run in runs]) for name in runs[0]}
    values["x"] = samples
    assert set(table.values) == set(values)
    assert table.samples == 20
    for name, data in values.items():
        found = table[name]
        assert found.count == data.size
        np.testing.assert_allclose(
            (found.minimum, found.maximum, found.mean, found.std),
            (data.min(), data.max(), data.mean(), data.std()),
            rtol=1e-3,
            atol=1e-5,
        )


def test_fingerprints_are_those_of_data_and_model() -> None:
    model = fused(NETWORK)
    data = as_data(samples_of(model, 17))
    table = collect_statistics(model, data)
    assert table.data_fingerprint == data.fingerprint()
    assert table.model_fingerprint == fingerprint_model(model)
    assert CalibrationTable.from_json(table.to_json()) == table


def test_data_are_a_stream_of_which_one_batch_is_alive() -> None:
    model = relu()
    alive = 0
    peak = 0

    class Counted(np.ndarray):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def read(index: int) -> dict[str, np.ndarray]:
        nonlocal alive, peak
        alive += 1
        peak = max(peak, alive)
        coarse = np.random.default_rng(index).uniform(size=(3, 2, 2)).astype(np.float32)
        return {"x": coarse.repeat(4, 1).repeat(4, 2).view(Counted)}

    table = collect_statistics(model, CalibrationData("counted", 100, read))
    assert table.samples == 100
    assert peak <= 8


def test_the_model_is_left_as_it_is() -> None:
    model = fused(NETWORK)
    before = model.serialized()
    collect_statistics(model, as_data(samples_of(model, 2)))
    assert model.serialized() == before


def test_a_set_that_cannot_be_right_is_refused_and_an_odd_one_noted_in_the_table() -> None:
    model = relu()
    noise = np.random.default_rng(0).standard_normal((20, 3, 8, 8)).astype(np.float32)
    with pytest.raises(DataError, match="white noise"):
        collect_statistics(model, as_data(noise))
    table = collect_statistics(model, as_data(noise), allow_suspicious=True)
    assert "white noise" in table.warnings[0]
    few = collect_statistics(model, as_data(samples_of(model, 3)))
    assert few.warnings[0].startswith("only 3 calibration sample(s)")


def test_the_contract_of_the_model_is_the_one_that_is_checked() -> None:
    model = replace(relu(), preprocess=Preprocess(size=(8, 8)))
    with pytest.raises(DataError, match="reaches from"):
        collect_statistics(model, as_data(samples_of(model) * 100))


def test_a_value_that_is_not_finite_is_named() -> None:
    text = """agraph (float[1, 3, 8, 8] x) => (float[1, 3, 8, 8] y) <float big = {3e38}> {
        large = Mul (x, big)
        over = Mul (large, big)
        y = Relu (over)
    }"""
    model = as_model(parse(text), Stage.FUSED)
    with pytest.raises(DataError, match=r"value '(large|over)'"):
        collect_statistics(model, as_data(samples_of(model)))


def test_a_sample_of_another_shape_is_refused() -> None:
    samples = np.zeros((2, 3, 8, 9), np.float32)
    with pytest.raises(DataError, match=r"shape \(3, 8, 9\)"):
        collect_statistics(relu(), as_data(samples))


def test_functions_of_ours_have_their_output_in_the_table() -> None:
    text = """agraph (float[1, 4, 4, 4] x) => (float[1, 4, 4, 4] y) {
        s = deploykit.Silu (x)
        y = Relu (s)
    }
    <domain: "deploykit", opset_import: ["" : 20]>
    Silu (x) => (y) { g = Sigmoid (x)  y = Mul (x, g) }"""
    graph = parse(text, header='<ir_version: 9, opset_import: ["" : 20, "deploykit" : 1]>\n')
    model = as_model(graph, Stage.FUSED)
    samples = samples_of(model)
    table = collect_statistics(model, as_data(samples))
    assert set(table.values) == {"x", "s", "y"}
    assert table["s"].maximum == pytest.approx(
        float((samples / (1 + np.exp(-samples))).max()), rel=1e-5
    )


def test_batches_come_from_the_data_in_order() -> None:
    seen: list[int] = []

    def read(index: int) -> dict[str, np.ndarray]:
        seen.append(index)
        return {"x": samples_of(relu(), 1, seed=index)[0]}

    collect_statistics(relu(), CalibrationData("ordered", 9, read))
    assert seen == list(range(9))


def test_integer_values_are_left_out() -> None:
    text = """agraph (float[1, 3, 8, 8] x) => (float[1, 3, 8, 8] y) {
        s = Shape (x)
        y = Reshape (x, s)
    }"""
    graph = parse(text)
    for node in graph.graph:
        if node.op_type == "Shape":
            node.outputs[0].dtype = ir.DataType.INT64
    model = as_model(graph, Stage.FUSED)
    assert set(collect_statistics(model, as_data(samples_of(model))).values) == {"x", "y"}
