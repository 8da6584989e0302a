"""Models that other quantizers wrote, style by style, to the int8 of each target."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import deploykit
from deploykit.flow.convert import convert
from deploykit.flow.plan import ConvertRequest
from deploykit.flow.result import ConversionResult
from deploykit.graph.qdq import fold_qdq
from deploykit.graph.read_qdq import data_inputs
from deploykit.model import Model, Precision, Stage
from deploykit.parity.metrics import snr_db
from deploykit.passes.pipeline import advance
from deploykit.target import find_target, policy_of
from deploykit_quantize.adopt_qdq import adopt_quantization
from deploykit_testing.qdq_styles import STYLES, float_model, quantized_model, run_all, samples

pytest.importorskip("ai_edge_litert")
pytest.importorskip("coremltools")

TARGETS = ["tflite", "coreml", "onnx"]
WEIGHTED = ("Conv", "Gemm")


@pytest.fixture(scope="module", params=STYLES)
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    onnx.save(quantized_model(STYLES[request.param]), folder / "net.onnx")
    np.save(folder / "tensors.npy", samples(8))
    return folder / "net.onnx"


def adopted_for(source: Path, target: str) -> Model:
    policy = policy_of(find_target(target), Precision.INT8, {})
    assert policy is not None
    return adopt_quantization(advance(deploykit.load(source), Stage.FUSED), policy)


def converted(source: Path, out: Path) -> ConversionResult:
    request = ConvertRequest(
        targets=tuple(TARGETS),
        precisions=("int8",),
        out=out,
        calibration=source.parent / "tensors.npy",
        samples=4,
    )
    return convert(deploykit.load(source), request)


def outputs_of(model: onnx.ModelProto) -> np.ndarray:
    return run_all(model, samples(8))[model.graph.output[0].name]


def test_every_layer_is_what_the_source_says(source: Path, tmp_path: Path) -> None:
    result = converted(source, tmp_path / "b")
    assert result.report.passed, result.report
    assert {a.target for a in result.bundle.artifacts} == set(TARGETS)
    for verdict in result.report.verdicts:
        (worst,) = [c.measured for c in verdict.checks if c.metric == "layer_error_lsb"]
        assert worst <= 2.0
        told = {c.metric: c.measured for c in verdict.checks}
        assert told["snr_db"] >= 25.0  # to ONNX Runtime's simulation of the source


@pytest.mark.parametrize("target", TARGETS)
def test_layers_with_weights_run_in_integers(source: Path, target: str) -> None:
    folded = fold_qdq(adopted_for(source, target).graph)
    output = folded.model.graph.outputs[0].producer()
    floats = [
        node.name
        for node in folded.model.graph
        if node.op_type in WEIGHTED and not folded.runs_in_integers(node)
    ]
    # A classifier whose scores nobody rounds has no scale to give its result in.
    rounded = STYLES[source.parent.name.rstrip("0123456789")].results
    assert floats == ([] if rounded or output is None else [output.name])
    for node in folded.model.graph:
        if node.op_type in WEIGHTED and node.name not in floats:
            assert all(folded.params[v.name or ""].axis is None for v in data_inputs(node))


def test_no_batch_normalization_is_left_beside_a_convolution(source: Path) -> None:
    fused = advance(deploykit.load(source), Stage.FUSED)
    ops = [node.op_type for node in fused.graph.graph]
    assert "BatchNormalization" not in ops
    assert "Mul" not in ops
    assert ops.count("Add") == 1
    style = STYLES[source.parent.name.rstrip("0123456789")]
    assert ops.count("Conv") == (6 if style.batchnorm == "between" else 3)


def test_the_fused_stage_computes_what_the_source_computes(source: Path) -> None:
    fused = advance(deploykit.load(source), Stage.FUSED)
    wanted = outputs_of(onnx.load(source))
    found = outputs_of(onnx.load_from_string(fused.serialized()))
    assert snr_db(found, wanted) >= 40.0


@pytest.mark.parametrize("name", STYLES)
def test_a_style_is_near_to_the_floats(name: str) -> None:
    """The fixture itself: a wrong one would prove nothing."""
    assert snr_db(outputs_of(quantized_model(STYLES[name])), outputs_of(float_model())) >= 35.0
