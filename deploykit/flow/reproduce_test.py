from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from deploykit.cli import main

NETWORK = """
<ir_version: 9, opset_import: ["" : 20]>
net (float[1,3,8,8] x) => (float[1,3] y) {
    mean = GlobalAveragePool (x)
    y = Flatten (mean)
}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reproduce")
    onnx.save(onnx.parser.parse_model(NETWORK), folder / "net.onnx")
    rng = np.random.default_rng(0)
    np.save(folder / "x.npy", rng.standard_normal((20, 3, 8, 8)).cumsum(2).astype(np.float32))
    words = ["convert", str(folder / "net.onnx"), "--to", "onnx", "--int8", "--fp32", "--quiet"]
    words += ["--observer", "percentile:99.9", "--calibrate", str(folder / "x.npy")]
    assert main([*words, "--name", "other", "--out", str(folder / "b")]) == 0
    return folder


def test_a_bundle_is_made_again_to_the_byte(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["reproduce", str(made / "b"), "--source", str(made / "net.onnx"), "--quiet"]
    words += ["--out", str(tmp_path / "again")]
    assert main(words) == 2
    assert "calibrated with 'x.npy'" in capsys.readouterr().err
    assert main([*words, "--calibrate", str(made / "x.npy")]) == 0
    assert sorted(capsys.readouterr().out.splitlines()) == [
        "same       other.fp32.onnx",
        "same       other.int8.onnx",
    ]
    first, second = (
        json.loads((folder / "deploykit.json").read_text())
        for folder in (made / "b", tmp_path / "again")
    )
    assert first["made"] == second["made"]


def test_other_data_make_another_file(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = np.random.default_rng(1).standard_normal((20, 3, 8, 8)).cumsum(2) * 3
    np.save(tmp_path / "x.npy", other.astype(np.float32))
    words = ["reproduce", str(made / "b"), "--source", str(made / "net.onnx"), "--quiet"]
    words += ["--calibrate", str(tmp_path / "x.npy"), "--out", str(tmp_path / "again")]
    assert main(words) == 1
    assert "different  other.int8.onnx" in capsys.readouterr().out
