"""``TARGET.softmax=yes``: probabilities, verified beside files that give logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed (extra [tflite])")
pytest.importorskip("ncnn", reason="ncnn is not installed (extra [ncnn])")

import deploykit
from deploykit.bundle import GOLDEN
from deploykit.errors import ContractError
from deploykit.flow.convert import convert
from deploykit.flow.plan import ConvertRequest
from deploykit.flow.verify import verify
from deploykit.golden import Golden

_GRAPH = """<ir_version: 10, opset_import: ["" : 18]>
g (float[1,3,12,12] image) => (float[1,5] scores) {{
 a = Conv<kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]>(image, W0) b = Relu(a)
 p = GlobalAveragePool(b) q = Flatten(p) {end} }}"""
_LOGITS = "scores = Gemm<transB=1>(q, W1)"
_PROBABILITIES = "z = Gemm<transB=1>(q, W1) scores = Softmax<axis=1>(z)"
RUNNERS = ("litert-reference", "onnxruntime-plain", "ncnn")


def source(folder: Path, end: str) -> Path:
    random = np.random.default_rng(7)
    proto = onnx.parser.parse_model(_GRAPH.format(end=end))
    for name, shape in (("W0", (8, 3, 3, 3)), ("W1", (5, 8))):
        weights = random.standard_normal(shape) * 2 / np.prod(shape[1:]) ** 0.5
        proto.graph.initializer.append(numpy_helper.from_array(weights.astype(np.float32), name))
    onnx.save(proto, folder / "tiny.onnx")
    images = np.cumsum(random.standard_normal((32, 3, 12, 12)), axis=-1).astype(np.float32)
    np.savez(folder / "data.npz", image=images)
    return folder / "tiny.onnx"


def test_probabilities_beside_logits(tmp_path: Path) -> None:
    request = ConvertRequest(
        targets=("tflite", "onnx", "ncnn"),
        precisions=("fp32", "int8"),
        options={name: {"softmax": "yes"} for name in ("tflite", "ncnn")},
        out=tmp_path / "bundle",
        calibration=tmp_path / "data.npz",
        runners=RUNNERS,
        layers=True,  # the stages of both kinds are compared too
    )
    result = convert(deploykit.load(source(tmp_path, _LOGITS)), request)
    assert result.report.passed
    kinds = {(a.target, a.precision): dict(a.output_kinds) for a in result.bundle.artifacts}
    assert len(kinds) == 6
    for (target, _), found in kinds.items():
        wanted = {"scores": "logits"} if target == "onnx" else {"probabilities": "probabilities"}
        assert found == wanted
    golden = Golden.from_npz(result.folder / GOLDEN)
    powers = np.exp(golden.reference["scores"])
    shares = powers / powers.sum(axis=1, keepdims=True)
    for path, runs in golden.runs.items():
        for outputs in runs.values():
            if "probabilities" in outputs:
                limit = 1e-5 if "fp32" in path else 0.1
                assert np.abs(outputs["probabilities"] - shares).max() <= limit
    assert verify(result.folder, runners=RUNNERS).passed


def test_what_holds_probabilities_gets_no_second_softmax(tmp_path: Path) -> None:
    request = ConvertRequest(
        precisions=("fp32",), options={"tflite": {"softmax": "yes"}}, out=tmp_path / "bundle"
    )
    model = deploykit.load(source(tmp_path, _PROBABILITIES))
    with pytest.raises(ContractError, match="'scores', which holds probabilities"):
        convert(model, request)
    assert not (tmp_path / "bundle").exists()
