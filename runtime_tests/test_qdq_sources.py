"""Models that come quantized keep their scales: ONNX Runtime's own quantizer to every target.

The network is the trained example's fused stage, calibrated on its own sample by ONNX Runtime's
``quantize_static``; nothing of deploykit's quantization takes part.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import deploykit
from deploykit.calibration.data import sample_as_data
from deploykit.errors import UserError
from deploykit.flow.convert import convert
from deploykit.flow.plan import ConvertRequest
from deploykit.flow.result import ConversionResult
from deploykit.graph.qdq import fold_qdq, has_qdq
from deploykit.model import Stage
from deploykit.passes.pipeline import advance

pytest.importorskip("torch")
pytest.importorskip("ai_edge_litert")

EXAMPLE = Path(__file__).parent.parent / "examples" / "ghostnet.pt"


@pytest.fixture(scope="module")
def float_model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The fused stage as .onnx, and its sample as ready tensors."""
    folder = tmp_path_factory.mktemp("fused")
    fused = advance(deploykit.load(EXAMPLE), Stage.FUSED)
    fused.save(folder / "ghostnet.onnx")
    data = sample_as_data(fused, 16)
    assert data is not None
    name = fused.inputs[0].name
    np.save(folder / "tensors.npy", np.stack([data.read(i)[name] for i in range(data.count)]))
    return folder / "ghostnet.onnx", folder / "tensors.npy"


def quantize_static(model: Path, tensors: Path, out: Path, activations: str, weights: str) -> Path:
    """ONNX Runtime's static quantization to QDQ."""
    from onnxruntime import quantization as q

    array = np.load(tensors)

    class Reader(q.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.feeds = iter([{"input": one[None]} for one in array])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    types = {"int8": q.QuantType.QInt8, "uint8": q.QuantType.QUInt8}
    q.quantize_static(
        model,
        out,
        Reader(),
        quant_format=q.QuantFormat.QDQ,
        activation_type=types[activations],
        weight_type=types[weights],
        per_channel=weights == "int8",
    )
    return out


def convert_quantized(source: Path, tensors: Path, out: Path, target: str) -> ConversionResult:
    """To int8, with the sample as golden inputs only."""
    request = ConvertRequest(
        targets=(target,), precisions=("int8",), out=out, calibration=tensors, samples=4
    )
    return convert(deploykit.load(source), request)


def layer_errors(result: ConversionResult) -> dict[str, float]:
    """Runner → worst layer by itself, in its own steps."""
    return {
        v.runner_name: max(c.measured for c in v.checks if c.metric == "layer_error_lsb")
        for v in result.report.verdicts
    }


@pytest.mark.parametrize(("activations", "weights"), [("int8", "int8"), ("uint8", "int8")])
def test_onnxruntimes_own_quantization_goes_to_tflite_within_two_steps(
    float_model: tuple[Path, Path], tmp_path: Path, activations: str, weights: str
) -> None:
    model, tensors = float_model
    source = quantize_static(model, tensors, tmp_path / "user.onnx", activations, weights)

    result = convert_quantized(source, tensors, tmp_path / "bundle", "tflite")

    assert result.report.passed, result.report
    errors = layer_errors(result)
    assert set(errors) == {"litert", "litert-reference"}
    assert max(errors.values()) <= 2.0
    assert not (tmp_path / "bundle" / "calibration.json").exists()
    for verdict in result.report.verdicts:
        told = {c.metric: c.measured for c in verdict.checks}
        assert told["output_error_lsb"] <= 12.0  # of many layers, each off a little
        assert told["top1_agreement"] >= 0.9


def test_onnxruntimes_own_quantization_goes_to_coreml_within_two_steps(
    float_model: tuple[Path, Path], tmp_path: Path
) -> None:
    pytest.importorskip("coremltools")
    model, tensors = float_model
    source = quantize_static(model, tensors, tmp_path / "user.onnx", "uint8", "int8")
    given = fold_qdq(deploykit.load(source).graph).params

    result = convert_quantized(source, tensors, tmp_path / "bundle", "coreml")

    assert result.report.passed, result.report
    errors = layer_errors(result)
    assert set(errors) == {"coreml-reference"}
    assert max(errors.values()) <= 2.0
    (artifact,) = result.bundle.artifacts
    counts = artifact.summary["op_counts"]
    assert counts["constexpr_affine_dequantize"] == counts["conv"] + counts["linear"]
    (step,) = artifact.output_steps.values()
    # Scales of a float16 program are float16.
    assert step.scale[0] == float(np.float16(given[artifact.outputs[0].name].scale[0]))


def test_a_quantized_models_scales_are_those_of_the_file(
    float_model: tuple[Path, Path], tmp_path: Path
) -> None:
    model, tensors = float_model
    source = quantize_static(model, tensors, tmp_path / "user.onnx", "uint8", "int8")
    loaded = deploykit.load(source)
    fused = advance(loaded, Stage.FUSED)
    given = fold_qdq(loaded.graph).params["input"]

    result = convert_quantized(source, tensors, tmp_path / "bundle", "tflite")

    assert has_qdq(fused.graph)
    (spec,) = result.bundle.artifacts[0].inputs
    assert spec.quantization is not None
    assert spec.quantization.scale == given.scale
    assert spec.quantization.dtype == "int8"
    assert spec.quantization.zero_point == (given.zero_point[0] - 128,)


def test_a_quantized_model_goes_to_onnx_again_without_a_loss(
    float_model: tuple[Path, Path], tmp_path: Path
) -> None:
    model, tensors = float_model
    source = quantize_static(model, tensors, tmp_path / "user.onnx", "int8", "int8")

    result = convert_quantized(source, tensors, tmp_path / "bundle", "onnx")

    assert result.report.passed, result.report
    plain = next(v for v in result.report.verdicts if v.runner_name == "onnxruntime-plain")
    errors = [c.measured for c in plain.checks if c.metric == "max_error_over_range"]
    assert max(errors, default=0.0) == 0.0


def test_another_precision_of_a_quantized_model_is_refused(
    float_model: tuple[Path, Path], tmp_path: Path
) -> None:
    model, tensors = float_model
    source = quantize_static(model, tensors, tmp_path / "user.onnx", "int8", "int8")

    with pytest.raises(UserError, match="quantized already"):
        convert(deploykit.load(source), ConvertRequest(precisions=("fp32",), out=tmp_path / "b"))
    assert not (tmp_path / "b").exists()
