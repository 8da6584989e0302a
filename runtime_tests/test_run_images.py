"""``deploykit run``: classes of real photos, the same as the float stage names them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed (extra [tflite])")

from deploykit.cli import main
from deploykit.preprocess import Preprocess

_GRAPH = """<ir_version: 10, opset_import: ["" : 18]>
g (float[1,3,12,12] image) => (float[1,6] scores) {
 a = Conv<kernel_shape=[3,3], strides=[2,2]>(image, W0) b = Relu(a)
 p = GlobalAveragePool(b) q = Flatten(p) scores = Gemm<transB=1>(q, W1) }"""
NAMES = ("ant", "bee", "cat", "dog", "eel", "fox")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    random = np.random.default_rng(3)
    proto = onnx.parser.parse_model(_GRAPH)
    for name, shape in (("W0", (8, 3, 3, 3)), ("W1", (6, 8))):
        weights = random.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(weights, name))
    onnx.save(proto, folder / "tiny.onnx")
    arguments = ["--mean", "0.4,0.5,0.6", "--std", "0.2", "--crop", "12", "--resize", "14"]
    arguments += ["--labels", ",".join(NAMES), "--to", "tflite,onnx", "--out", str(folder / "b")]
    assert main(["convert", str(folder / "tiny.onnx"), "--quiet", "--fp32", *arguments]) == 0
    pixels = random.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "photo.png")
    return folder


def test_classes_are_those_of_the_source(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import onnxruntime

    photo = str(bundle / "photo.png")
    assert main(["run", str(bundle / "b"), photo, photo, "--json"]) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert {r["runner"] for r in runs} >= {"litert", "litert-reference", "onnxruntime-plain"}
    contract = Preprocess((12, 12), resize=14, mean=(0.4, 0.5, 0.6), std=(0.2,) * 3)
    session = onnxruntime.InferenceSession(str(bundle / "tiny.onnx"))
    tensor = contract.apply(Image.open(photo))[None]
    scores = session.run(None, {"image": tensor})[0][0]
    order = np.argsort(-scores)[:5]
    for one in runs:
        assert [g["label"] for g in one["guesses"]] == [NAMES[i] for i in order]
        assert np.allclose([g["score"] for g in one["guesses"]], scores[order], atol=1e-4)
        assert one["kind"] == "logits"
        assert one["milliseconds"] > 0
    assert main(["run", str(bundle / "b"), photo, "--runner", "litert"]) == 0
    shown = capsys.readouterr().out
    assert "tiny.fp32.tflite on litert (" in shown
    assert NAMES[order[0]] in shown


def test_all_unreadable_images_are_named(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / "broken.jpg").write_bytes(b"\xff\xd8 no image")
    images = [str(bundle / name) for name in ("broken.jpg", "photo.png", "missing.png")]
    assert main(["run", str(bundle / "b"), *images]) == 2
    shown = capsys.readouterr().err
    assert "2 of 3 images cannot be read" in shown
    assert "broken.jpg" in shown
    assert "missing.png" in shown
