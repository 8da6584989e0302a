"""The trained example for ONNX Runtime: every precision, what is fused, .ort, and one report."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import deploykit
from deploykit.calibration import collect
from deploykit.cli import main
from deploykit.errors import UserError
from deploykit.flow.convert import convert
from deploykit.flow.plan import ConvertRequest
from deploykit.flow.result import ConversionResult
from deploykit.model import Model

pytest.importorskip("torch")

EXAMPLE = Path(__file__).parent.parent / "examples" / "ghostnet.pt"


@pytest.fixture(scope="module")
def model() -> Model:
    return deploykit.load(EXAMPLE)


def make(model: Model, out: Path, *precisions: str, **options: str) -> ConversionResult:
    request = ConvertRequest(
        targets=("onnx",), precisions=precisions, options={"onnx": options}, out=out, samples=4
    )
    return convert(model, request)


def fused_ops(path: Path, folder: Path) -> dict[str, int]:
    """Op type → count after ONNX Runtime's own optimizations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    counts: dict[str, int] = {}
    for node in onnx.load(folder / "optimized.onnx").graph.node:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return counts


def test_every_precision_passes_and_any_consumer_can_load_it(model: Model, tmp_path: Path) -> None:
    result = make(model, tmp_path / "b", "fp32", "fp16", "w8", "int8")

    assert result.report.passed, result.report
    sizes = {a.precision: a.bytes for a in result.bundle.artifacts}
    assert sizes["fp16"] < 0.55 * sizes["fp32"]
    assert sizes["int8"] < 0.4 * sizes["fp32"]
    assert {v.bytes for v in result.report.verdicts} == set(sizes.values())
    for artifact in result.bundle.artifacts:
        written = onnx.load(tmp_path / "b" / artifact.path)
        onnx.checker.check_model(written, full_check=True)
        assert not written.functions
        assert {node.domain for node in written.graph.node} == {""}
        assert [s.dtype for s in (*artifact.inputs, *artifact.outputs)] == ["float32"] * 2
    plain = [v for v in result.report.verdicts if v.runner_name == "onnxruntime-plain"]
    for verdict in plain:  # node by node, an artefact is its stage; fp16 is not
        metric = "max_error_over_range"
        if verdict.precision in ("fp32", "w8"):
            assert next(c.measured for c in verdict.checks if c.metric == metric) == 0.0


@pytest.mark.parametrize("activations", ["int8", "uint8"])
def test_int8_runs_in_integer_kernels_from_end_to_end(
    model: Model, tmp_path: Path, activations: str
) -> None:
    result = make(model, tmp_path / "b", "int8", activations=activations)

    assert result.report.passed, result.report
    (artifact,) = result.bundle.artifacts
    counts = fused_ops(tmp_path / "b" / artifact.path, tmp_path)
    assert counts.pop("QuantizeLinear") == 1  # of the input
    assert counts.pop("DequantizeLinear") == 1  # of the output
    floats = {op for op in counts if not op.startswith(("QLinear", "QGemm"))}
    assert floats <= {"Reshape"}  # moves integers
    assert counts["QLinearConv"] > 50
    saturates = [w for w in result.report.warnings if "VNNI" in w]
    assert len(saturates) == 1
    layers = [c for v in result.report.verdicts for c in v.checks if c.metric == "layer_error_lsb"]
    assert len(layers) >= 2
    assert max(c.measured for c in layers) <= 2.0


def test_per_tensor_weights_have_one_scale(model: Model, tmp_path: Path) -> None:
    result = make(model, tmp_path / "b", "int8", per_channel="no")

    written = onnx.load(tmp_path / "b" / result.bundle.artifacts[0].path)
    scales = [i for i in written.graph.initializer if i.name.endswith("_scale")]
    weights = {n.input[1] for n in written.graph.node if n.input[0].endswith("weight_quantized")}
    assert weights
    assert {tuple(i.dims) for i in scales if i.name in weights} == {()}


def test_an_ort_file_runs_like_the_onnx_file_and_names_its_operators(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = ConvertRequest(
        targets=("onnx",),
        precisions=("int8",),
        options={"onnx": {"ort": "yes"}},
        out=tmp_path / "a",
        samples=4,
    )
    result = convert(model, request)
    assert result.report.passed, result.report
    (artifact,) = result.bundle.artifacts
    names = ["onnxruntime-optimized", "onnxruntime-plain", "onnxruntime-ort"]
    assert [v.runner_name for v in artifact.verdicts] == names
    layers = [c for c in artifact.verdicts[2].checks if c.metric == "layer_error_lsb"]
    assert layers[0].measured <= 2.0
    folder = tmp_path / "a"
    stem = artifact.path.removesuffix(".onnx")
    x = np.random.default_rng(0).normal(size=artifact.inputs[0].shape).astype(np.float32)
    sessions = [
        onnxruntime.InferenceSession(str(folder / f"{stem}{suffix}"))
        for suffix in (".onnx", ".ort")
    ]
    name = artifact.inputs[0].name
    whole, flat = (s.run(None, {name: x})[0] for s in sessions)
    step = artifact.output_steps[artifact.outputs[0].name].scale[0]
    assert np.abs(whole - flat).max() <= 4 * step
    operators = (folder / f"{stem}.required_operators.config").read_text()
    assert 'ai.onnx;10;QLinearConv{"inputs": {"0": ["int8_t"]}}\n' in operators
    ort = folder / f"{stem}.ort"
    assert hashlib.sha256(ort.read_bytes()).hexdigest() in {f.sha256 for f in artifact.files}
    capsys.readouterr()
    assert main(["verify", str(folder), "--runner", "onnxruntime-ort"]) == 0
    assert "onnxruntime-ort" in capsys.readouterr().out
    assert main(["inspect", str(ort)]) == 0
    assert "QLinearConv" in capsys.readouterr().out
    assert main(["inspect", str(folder / artifact.path)]) == 0  # a source: its stage is printed
    assert "flatbuffer" not in capsys.readouterr().out


def test_a_runner_of_ort_files_alone_needs_one(model: Model, tmp_path: Path) -> None:
    request = ConvertRequest(
        targets=("onnx",), runners=("onnxruntime-ort",), out=tmp_path / "b", samples=1
    )
    with pytest.raises(UserError, match=r"no file that onnxruntime-ort runs"):
        convert(model, request)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("family", ["shufflenet_v1", "shufflenet_v2"])
def test_shuffles_and_pools_of_other_families(family: str, tmp_path: Path) -> None:
    """ShuffleNetV1 pools averages, which ONNX Runtime takes without their dilations only."""
    model = deploykit.load(EXAMPLE.parent / "checkpoints" / f"{family}.pt")
    result = make(model, tmp_path / "b", "fp32", "int8", ort="yes")
    assert result.report.passed, result.report
    for artifact in result.bundle.artifacts:
        written = onnx.load(tmp_path / "b" / artifact.path)
        assert "Shape" not in {node.op_type for node in written.graph.node}


def test_reduced_weights_warn_of_nothing(model: Model, tmp_path: Path) -> None:
    options = {"activations": "uint8", "reduce_range": "yes"}
    result = make(model, tmp_path / "b", "int8", **options)
    assert result.report.passed, result.report
    assert not [w for w in result.report.warnings if "VNNI" in w]
    written = onnx.load(tmp_path / "b" / result.bundle.artifacts[0].path)
    arrays = [onnx.numpy_helper.to_array(i) for i in written.graph.initializer]
    assert max(int(np.abs(a.astype(int)).max()) for a in arrays if a.dtype == np.int8) == 63


def test_all_targets_are_calibrated_once_and_verified_in_one_report(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ai_edge_litert")
    calls = []
    real = collect.collect_statistics

    def counted(*args: object, **kwargs: object) -> object:
        calls.append(args)
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(collect, "collect_statistics", counted)
    request = ConvertRequest(targets=("all",), precisions=("int8",), out=tmp_path / "b", samples=2)

    result = convert(model, request)

    assert len(calls) == 1
    written = {a.target for a in result.bundle.artifacts}
    assert {"onnx", "tflite"} <= written
    assert {v.target for v in result.report.verdicts} == written
    assert all(v.bytes > 0 for v in result.report.verdicts)
