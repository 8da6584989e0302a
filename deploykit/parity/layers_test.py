from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from deploykit.errors import RunnerError
from deploykit.graph.provenance import MODULE_KEY
from deploykit.model import Model, Precision, SourceInfo, Stage
from deploykit.parity.attribute import compare_stages
from deploykit.parity.layers import LayerDifference, compare_layers, describe_values
from deploykit.parity.stages import run_stage
from deploykit.runners.process import open_runner
from deploykit.target import Artifact
from deploykit.tensors import QuantParams, TensorSpec
from deploykit_testing.fake_runners import definition

FLOAT = """
<ir_version: 9, opset_import: ["" : 20]>
net (float[1,2,3,3] x) => (float[1,2] y)
  <float two = {2.0}, int64[2] shape = {1, 2}>
{
  doubled = Mul (x, two)
  gate = Sigmoid (doubled)
  pooled = GlobalAveragePool (gate)
  y = Reshape (pooled, shape)
}
"""
#: The same in NHWC under other names, with another slope of the gate.
ARTIFACT = """
<ir_version: 9, opset_import: ["" : 20]>
net (float[1,3,3,2] x) => (float[1,2] y)
  <float two = {2.0}, float slope = {SLOPE}>
{
  t_doubled = Mul (x, two)
  steeper = Mul (t_doubled, slope)
  t_gate = Sigmoid (steeper)
  y = ReduceMean <keepdims = 0> (t_gate, axes)
}
"""
QDQ = """
<ir_version: 9, opset_import: ["" : 20]>
net (float[1,2,3,3] x) => (float[1,2,3,3] y)
  <float scale = {0.05}, int8 zero = {0}>
{
  r = Relu (x)
  r_q = QuantizeLinear (r, scale, zero)
  r_dq = DequantizeLinear (r_q, scale, zero)
  x_q = QuantizeLinear (x, scale, zero)
  y = Add (r_dq, x)
}
"""
X = np.random.default_rng(11).standard_normal((6, 2, 3, 3), dtype=np.float32)
STEP = QuantParams((0.01,), (0,))


def model(text: str, stage: Stage = Stage.FUSED) -> Model:
    graph = ir.from_proto(onnx.parser.parse_model(text))
    for node in graph.graph:
        node.metadata_props[MODULE_KEY] = f"block.{node.op_type.lower()}"
    return Model(graph, stage, "net", SourceInfo("onnx"))


def artifact(folder: Path, slope: str = "1.0") -> tuple[Path, Artifact]:
    text = ARTIFACT.replace("SLOPE", slope).replace(">\n{", ", int64[2] axes = {1, 2}>\n{")
    path = folder / "artifact.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    shape = (1, 3, 3, 2)
    return path, Artifact(
        target="fake",
        precision=Precision.FP32,
        suffix=".onnx",
        data=path.read_bytes(),
        inputs=(TensorSpec("x", shape, layout="NHWC"),),
        outputs=(TensorSpec("y", (1, 2)),),
        value_names={"y": "y", "gate": "t_gate", "doubled": "t_doubled", "pooled": "absent"},
        value_specs={
            "t_doubled": TensorSpec("t_doubled", shape, layout="NHWC"),
            "t_gate": TensorSpec("t_gate", shape, layout="NHWC"),
            "y": TensorSpec("y", (1, 2)),
        },
    )


def layers(path: Path, contract: Artifact, **settings: Any) -> Any:
    arguments = {"runner": "onnxruntime", "inputs": {"x": X}, **settings}
    return compare_layers(path, contract, model(FLOAT), **arguments)


def test_rows_are_in_graph_order_and_name_module_and_op(tmp_path: Path) -> None:
    rows = layers(*artifact(tmp_path))
    assert [(r.value, r.module, r.op_type) for r in rows] == [
        ("doubled", "block.mul", "Mul"),
        ("gate", "block.sigmoid", "Sigmoid"),
        ("y", "block.reshape", "Reshape"),
    ]
    assert all(r.max_error_over_range < 1e-6 for r in rows)
    assert all(r.snr_db > 100 for r in rows)
    assert all(r.max_error_lsb is None for r in rows)


def test_the_first_value_that_diverges_is_the_broken_one(tmp_path: Path) -> None:
    before, broken, after = layers(*artifact(tmp_path, slope="1.5"))
    assert before.max_error_over_range < 1e-6
    assert broken.max_error_over_range > 1e-2
    assert after.max_error_over_range > 1e-3
    doubled = 2 * X[:4].astype(np.float64)
    gate, steep = (1 / (1 + np.exp(-slope * doubled)) for slope in (1.0, 1.5))
    assert broken.max_error_over_range == pytest.approx(
        np.abs(gate - steep).max() / gate.max(), rel=1e-4
    )
    assert broken.snr_db == pytest.approx(
        10 * math.log10((gate**2).sum() / ((gate - steep) ** 2).sum()), rel=1e-4
    )


def difference(actual: np.ndarray, expected: np.ndarray) -> LayerDifference:
    found = LayerDifference(TensorSpec("t", actual.shape))
    found.add(actual.astype(np.float32), expected.astype(np.float32))
    return found


def test_infinite_elements_of_the_stage_do_not_decide() -> None:
    stage = np.linspace(-1, 1, 24).reshape(1, 2, 12)
    stage[0, 1] = -np.inf
    for other in (-np.inf, -3e38, 0.0):
        actual = stage.copy()
        actual[0, 1] = other
        row = difference(actual + 1e-3, stage).row("t", "m", "Add")
        assert row.max_error_over_range == pytest.approx(1e-3, rel=0.1)
        assert 40 < row.snr_db < 70
    row = difference(np.full_like(stage, np.nan), stage).row("t", "m", "Add")
    assert row.max_error_over_range == math.inf  # not where the stage is finite


def test_the_range_of_a_layer_reaches_to_zero() -> None:
    stage = np.full((2, 1), 0.5)
    stage[1] += 1e-6  # nearly constant: its own range is nothing but rounding
    row = difference(stage + 1e-3, stage).row("t", "m", "GlobalAveragePool")
    assert row.max_error_over_range == pytest.approx(2e-3, rel=1e-2)
    row = difference(stage * 1.1, stage).row("t", "m", "GlobalAveragePool")
    assert row.max_error_over_range == pytest.approx(0.1, rel=1e-2)


def test_a_layer_of_zeros_is_held_against_the_others_ranges() -> None:
    zeros = np.zeros((1, 4))
    assert difference(zeros, zeros).row("t", "m", "Relu").max_error_over_range == 0
    tiny = difference(zeros + 1e-6, zeros)
    assert tiny.row("t", "m", "Relu", 2.0).max_error_over_range == pytest.approx(5e-7)
    wrong = difference(zeros + 1, zeros)
    assert wrong.row("t", "m", "Relu", 2.0).max_error_over_range == pytest.approx(0.5)


def test_quantized_values_are_told_in_steps(tmp_path: Path) -> None:
    text = """<ir_version: 9, opset_import: ["" : 20]>
    net (float[1,2,3,3] x) => (int8[1,2,3,3] t_gate)
      <float two = {2.0}, float scale = {0.01}, int8 zero = {0}>
    { doubled = Mul (x, two)  g = Sigmoid (doubled)  t_gate = QuantizeLinear (g, scale, zero) }"""
    path = tmp_path / "int8.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    spec = TensorSpec("t_gate", (1, 2, 3, 3), "int8", "NCHW", STEP)
    contract = Artifact(
        "fake",
        Precision.INT8,
        ".onnx",
        b"",
        (TensorSpec("x", (1, 2, 3, 3), layout="NCHW"),),
        (spec,),
        value_names={"gate": "t_gate"},
        value_specs={"t_gate": spec},
    )
    (row,) = layers(path, contract)
    assert row.max_error_lsb is not None
    assert 0.3 < row.max_error_lsb <= 0.5 + 1e-3
    assert row.max_error_over_range < 0.01


def test_a_value_of_another_shape_has_no_figures(tmp_path: Path) -> None:
    path, contract = artifact(tmp_path)
    specs = {**contract.value_specs, "t_gate": TensorSpec("t_gate", (1, 3, 3, 2))}
    wrong = Artifact(**{**vars(contract), "value_specs": specs})
    by_name = {row.value: row for row in layers(path, wrong)}
    assert math.isnan(by_name["gate"].max_error_over_range)
    assert by_name["doubled"].max_error_over_range < 1e-6


def test_a_runtime_that_gives_outputs_only_gives_no_rows(tmp_path: Path) -> None:
    def open_fake(spec: Any) -> Any:
        own = definition() if spec.runner == "fake" else None
        return open_runner(spec, own)

    path, contract = artifact(tmp_path)
    assert layers(path, contract, runner="fake", open_with=open_fake) == ()


def test_a_runtime_that_fails_is_an_error(tmp_path: Path) -> None:
    _, contract = artifact(tmp_path)
    with pytest.raises(RunnerError, match="doesn't exist"):
        layers(tmp_path / "absent.onnx", contract)


def test_values_around_q_and_dq_are_told_by_what_makes_them() -> None:
    described = describe_values(model(QDQ, Stage.QUANTIZED))
    assert described == {
        "r": ("block.relu", "Relu"),
        "r_q": ("block.relu", "Relu"),
        "r_dq": ("block.relu", "Relu"),
        "x_q": ("block.quantizelinear", "QuantizeLinear"),
        "y": ("block.add", "Add"),
    }


def test_a_stage_runs_every_sample() -> None:
    outputs = run_stage(model(FLOAT), {"x": X})
    gate = 1 / (1 + np.exp(-2 * X.astype(np.float64)))
    np.testing.assert_allclose(outputs["y"], gate.mean(axis=(2, 3)), rtol=1e-5)


def test_the_quantized_stage_may_be_noisy_but_not_broken() -> None:
    reference = run_stage(model(FLOAT), {"x": X})
    noisy = model(FLOAT.replace("{2.0}", "{2.2}"), Stage.QUANTIZED)
    (row,) = compare_stages({"fake.int8": noisy}, {"x": X}, reference, like=noisy)
    assert row.max_error_over_range > 1e-3
    assert not row.diverges
    broken = model(FLOAT.replace("Sigmoid", "Neg"), Stage.QUANTIZED)
    (row,) = compare_stages({"fake.int8": broken}, {"x": X}, reference, like=broken)
    assert row.diverges
