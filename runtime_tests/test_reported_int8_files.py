"""Files that once broke int8, each with the right value, on the targets' own runtimes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

import deploykit
from deploykit.flow.convert import convert
from deploykit.flow.plan import ConvertRequest
from deploykit.flow.result import ConversionResult
from deploykit_testing.reported_files import (
    batch_of_two,
    channel_norm,
    crossed_clip,
    dead_channel,
    gated_division,
    smooth,
    two_inputs,
)

pytest.importorskip("ai_edge_litert")
pytest.importorskip("coremltools")
pytest.importorskip("ncnn")

ALL = ("tflite", "coreml", "ncnn", "onnx")


def converted(
    model: onnx.ModelProto,
    folder: Path,
    *,
    targets: Sequence[str] = ALL,
    precisions: Sequence[str] = ("int8",),
    data: np.ndarray | Iterable[Mapping[str, np.ndarray]] | None = None,
    allow_suspicious: bool = False,
) -> ConversionResult:
    onnx.save(model, folder / "net.onnx")
    if isinstance(data, np.ndarray):
        np.save(folder / "data.npy", data)
        data = folder / "data.npy"
    request = ConvertRequest(
        targets=tuple(targets),
        precisions=tuple(precisions),
        out=folder / "bundle",
        calibration=data,
        samples=8,
        allow_suspicious=allow_suspicious,
    )
    return convert(deploykit.load(folder / "net.onnx"), request)


def figures(result: ConversionResult, metric: str) -> dict[str, float]:
    """Target and runner → the figure of int8 files."""
    return {
        f"{v.target} {v.runner_name}": next(c.measured for c in v.checks if c.metric == metric)
        for v in result.report.verdicts
        if v.precision == "int8"
    }


def test_a_channel_that_training_switched_off_does_not_refuse_a_model(tmp_path: Path) -> None:
    data = smooth(np.random.default_rng(1), 16, 3, 12, 12)
    result = converted(
        dead_channel(), tmp_path, data=data, targets=("coreml",), precisions=("int8", "w8")
    )
    assert result.report.passed, result.report
    assert min(figures(result, "snr_db").values()) > 30.0


def test_a_divisor_that_nears_zero_is_computed_in_float(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(size=(16, 3, 32, 32)).astype(np.float32)
    result = converted(
        gated_division(),
        tmp_path,
        data=data,
        precisions=("fp32", "int8"),
        allow_suspicious=True,
    )
    assert result.report.passed, result.report
    assert len(result.bundle.artifacts) == 2 * len(ALL)
    assert min(figures(result, "snr_db").values()) > 20.0


def test_a_normalization_of_channels_is_a_float_island(tmp_path: Path) -> None:
    data = smooth(np.random.default_rng(2), 16, 3, 24, 24)
    result = converted(channel_norm(), tmp_path, data=data, precisions=("fp32", "int8"))
    assert result.report.passed, result.report
    assert len(result.bundle.artifacts) == 2 * len(ALL)
    found = {k: v for k, v in figures(result, "snr_db").items() if "optimized" not in k}
    assert min(found.values()) > 25.0


def test_a_model_of_two_inputs_keeps_its_float_files(tmp_path: Path) -> None:
    result = converted(two_inputs(), tmp_path, targets=("onnx",), precisions=("fp32", "int8"))
    assert result.report.passed, result.report
    assert [a.precision for a in result.bundle.artifacts] == ["fp32"]
    (refusal,) = result.report.skipped
    assert (refusal.target, refusal.precision, refusal.refused) == ("onnx", "int8", True)
    assert "2 inputs" in refusal.reason
    assert "'a', 'b'" in refusal.reason


def test_a_model_of_two_inputs_is_calibrated_and_verified(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    arrays = {"a": smooth(rng, 36, 3, 8, 8), "b": smooth(rng, 36, 4, 8, 8)}
    samples = ({name: array[i] for name, array in arrays.items()} for i in range(36))
    result = converted(two_inputs(), tmp_path, targets=("tflite", "coreml", "ncnn"), data=samples)
    assert result.report.passed, result.report
    assert len(result.bundle.artifacts) == 3
    found = {k: v for k, v in figures(result, "snr_db").items() if "optimized" not in k}
    assert min(found.values()) > 28.0
    assert deploykit.verify(result.folder).passed
    with np.load(result.folder / "golden.npz") as golden:  # samples that calibrated nothing
        assert any(np.array_equal(golden["input/b"][0], sample) for sample in arrays["b"])


def test_a_model_of_a_fixed_batch_is_calibrated_in_its_batches(tmp_path: Path) -> None:
    data = smooth(np.random.default_rng(4), 33, 3, 10, 10)  # the last batch is half full
    result = converted(batch_of_two(), tmp_path, targets=("tflite",), data=data)
    assert result.report.passed, result.report
    assert result.bundle.artifacts[0].inputs[0].shape == (2, 10, 10, 3)
    assert min(figures(result, "snr_db").values()) > 28.0


def test_a_clip_whose_bounds_are_crossed_is_a_constant_in_integers(tmp_path: Path) -> None:
    data = smooth(np.random.default_rng(5), 16, 3, 10, 10)
    result = converted(crossed_clip(), tmp_path, targets=("coreml", "ncnn"), data=data)
    assert result.report.passed, result.report
    assert len(result.bundle.artifacts) == 2
    assert min(figures(result, "snr_db").values()) > 30.0
