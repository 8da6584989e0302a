"""Options of convert, from the command line to the artefact and its verdict."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from deploykit.bundle import read_bundle
from deploykit.cli import main


def convert(model: Path, out: Path, *arguments: str | Path) -> int:
    words = ["convert", model, "--out", out, "--quiet", "--samples", "4", *arguments]
    return main([str(w) for w in words])


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("io", ["auto", "int8", "uint8", "float32"])
def test_int8_ends_in_the_dtype_and_layout_that_are_asked_for(
    tiny_onnx: Path, images: Path, tmp_path: Path, io: str, layout: str
) -> None:
    arguments = ("--int8", "--calibrate", images, "--io", io, "--input-layout", layout)
    assert convert(tiny_onnx, tmp_path / "b", *arguments) == 0
    (artifact,) = read_bundle(tmp_path / "b").artifacts
    expected = "int8" if io == "auto" else io
    assert artifact.inputs[0].dtype == artifact.outputs[0].dtype == expected
    assert artifact.inputs[0].layout == layout
    assert artifact.inputs[0].shape == ((1, 8, 8, 3) if layout == "NHWC" else (1, 3, 8, 8))
    assert (artifact.inputs[0].quantization is None) == (expected == "float32")
    # Whatever the ends are, the output is verified in its integers' steps.
    assert set(artifact.output_steps) == {"output"}
    for verdict in artifact.verdicts:
        assert {"layer_error_lsb", "output_error_lsb"} <= {c.metric for c in verdict.checks}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "w8"])
def test_float_precisions_read_either_layout(
    tiny_onnx: Path, tmp_path: Path, precision: str
) -> None:
    for layout in ("NHWC", "NCHW"):
        out = tmp_path / layout
        assert convert(tiny_onnx, out, f"--{precision}", "--input-layout", layout) == 0
        (artifact,) = read_bundle(out).artifacts
        assert artifact.inputs[0].layout == layout


def test_io_is_refused_where_it_means_nothing(
    tiny_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(tiny_onnx, tmp_path / "b", "--fp32", "--io", "uint8") == 2
    assert "uint8" in capsys.readouterr().err


def test_a_limit_that_is_not_reached_fails_and_still_writes(
    tiny_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(tiny_onnx, tmp_path / "b", "--fp32", "--limit", "fp32.snr_db=500") == 1
    assert "FAIL" in capsys.readouterr().out
    (artifact,) = read_bundle(tmp_path / "b").artifacts
    assert not any(v.passed for v in artifact.verdicts)


def test_only_the_chosen_runner_verifies(tiny_onnx: Path, tmp_path: Path) -> None:
    assert convert(tiny_onnx, tmp_path / "b", "--fp32", "--runner", "litert-reference") == 0
    (artifact,) = read_bundle(tmp_path / "b").artifacts
    assert [v.runner_name for v in artifact.verdicts] == ["litert-reference"]


def test_json_is_the_report(
    tiny_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(tiny_onnx, tmp_path / "b", "--fp32", "--json") == 0
    report = json.loads(capsys.readouterr().out.partition("\nwrote ")[0])
    assert report["passed"] is True
    assert {v["runner"]["kernels"] for v in report["verdicts"]} == {"XNNPACK", "reference"}


def test_layers_are_listed_for_each_runner(
    tiny_onnx: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--int8", "--calibrate", images, "--layers")
    assert convert(tiny_onnx, tmp_path / "b", *arguments) == 0
    text = capsys.readouterr().out
    for runner in ("litert", "litert-reference"):
        assert f"tiny.int8.tflite on {runner}, value by value" in text
    assert "Conv" in text or "Relu" in text


@pytest.mark.parametrize("observer", ["minmax", "mse", "percentile:99.9"])
def test_observers_are_recorded(
    tiny_onnx: Path, images: Path, tmp_path: Path, observer: str
) -> None:
    arguments = ("--int8", "--calibrate", images, "--observer", observer)
    assert convert(tiny_onnx, tmp_path / "b", *arguments) == 0
    calibration = read_bundle(tmp_path / "b").calibration
    assert calibration is not None
    assert calibration["observer"] == observer.partition(":")[0]
    assert calibration["samples"] == 32


def test_without_verification_nothing_runs_and_verify_says_so(
    tiny_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(tiny_onnx, tmp_path / "b", "--fp32", "--no-verify") == 0
    assert "not verified" in capsys.readouterr().out
    assert not (tmp_path / "b" / "golden.npz").exists()
    assert main(["verify", str(tmp_path / "b")]) == 2
    assert "no golden vectors" in capsys.readouterr().err


def test_saved_stages_run_and_agree(tiny_onnx: Path, tmp_path: Path) -> None:
    import onnxruntime

    x = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    results = []
    for stage in ("exported", "simplified", "fused"):
        path = tmp_path / f"{stage}.onnx"
        assert main(["inspect", str(tiny_onnx), "--stage", stage, "--save", str(path)]) == 0
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        results.append(session.run(None, {"input": x})[0])
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], rtol=1e-5, atol=1e-6)


def test_an_output_shape_that_the_file_leaves_open_is_found(
    tmp_path: Path, build_network: Callable[..., onnx.ModelProto]
) -> None:
    network = build_network()
    network.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "somehow"
    onnx.save(network, tmp_path / "open.onnx")
    assert convert(tmp_path / "open.onnx", tmp_path / "b", "--fp32") == 0
    assert read_bundle(tmp_path / "b").outputs[0].shape == (1, 5)
