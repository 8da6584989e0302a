from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploykit.flow.calibrate import Calibrator
from deploykit.flow.plan import ConvertRequest, plan_artifacts
from deploykit.model import Model
from deploykit.preprocess import Preprocess
from deploykit_testing.quantized import fused

NETWORK = """
net (float[1,3,4,4] x) => (float[1,3,4,4] y) { y = Relu(x) }
"""


def numbered(count: int) -> np.ndarray:
    """Sample number ``i`` is filled with it, but for one element: a blank sample is refused."""
    samples = np.broadcast_to(np.arange(count)[:, None, None, None], (count, 3, 4, 4)).copy()
    samples[:, 2, 3, 3] = 200
    return samples


def loaded(folder: Path, count: int, own: bool = False, **settings: Any) -> Calibrator:
    model: Model = fused(NETWORK)
    request = ConvertRequest(targets=("onnx",), precisions=("int8",), **settings)
    if own:
        model = replace(
            model,
            calibration_sample=np.moveaxis(numbered(count), 1, -1).astype(np.uint8),
            preprocess=Preprocess(size=(4, 4), mean=(0.0,) * 3, std=(1 / 255,) * 3),
        )
    else:
        np.save(folder / "x.npy", numbered(count).astype(np.float32))
        request = replace(request, calibration=folder / "x.npy")
    plan, _ = plan_artifacts(request)
    return Calibrator.load(model, request, plan, lambda _: None)


def numbers(data: Any) -> list[int]:
    if data is None:
        return []
    return [round(float(data.read(i)["x"].flat[0])) for i in range(data.count)]


@pytest.mark.parametrize("method", ["minmax", "auto"])
@pytest.mark.parametrize(("count", "apart"), [(80, 16), (400, 80)])
def test_a_fifth_verifies_and_does_not_calibrate(
    tmp_path: Path, count: int, apart: int, method: str
) -> None:
    found = loaded(tmp_path, count, method=method)
    fitted, verified = numbers(found.fitted), numbers(found.verified)
    assert len(verified) == apart
    assert sorted(fitted + verified) == list(range(count))
    assert not found.seen
    chosen = numbers(found.held)
    assert set(chosen) <= set(verified)
    assert len(chosen) == (16 if method == "auto" else 0)


@pytest.mark.parametrize("method", ["minmax", "auto"])
def test_below_80_samples_all_verify_and_a_warning_says_that_they_calibrated(
    tmp_path: Path, method: str
) -> None:
    found = loaded(tmp_path, 79, method=method, allow_suspicious=True)
    assert numbers(found.verified) == list(range(79))
    assert found.seen
    found.calibrate()
    assert any("also calibrated" in warning for warning in found.warnings)
    summary = found.summary()
    assert summary is not None
    assert summary["held_out"] == 0


@pytest.mark.parametrize(("method", "fitted"), [("minmax", 128), ("auto", 112)])
def test_a_checkpoints_own_sample_calibrates_but_for_what_auto_chooses_by(
    tmp_path: Path, method: str, fitted: int
) -> None:
    found = loaded(tmp_path, 128, own=True, method=method)
    assert len(numbers(found.fitted)) == fitted
    assert found.seen == (method == "minmax")
    if method == "auto":
        assert numbers(found.verified) == numbers(found.held)
        assert not set(numbers(found.verified)) & set(numbers(found.fitted))
