from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

from deploykit.errors import RunnerError
from deploykit.runners.base import RunnerSpec
from deploykit.runners.onnxruntime_backend import OrtBackend
from deploykit.runners.process import open_runner

GATED = """
<ir_version: 9, opset_import: ["" : 20, "deploykit" : 1]>
gated (float[1,2,3,3] x) => (float[1,2,3,3] y, float[1,2,1,1] mean)
  <float w = {0.5}>
{
  gate = Sigmoid (x)
  scaled = Mul (gate, w)
  mean = GlobalAveragePool (scaled)
  silu = deploykit.Silu (x)
  y = Add (silu, mean)
}
<domain: "deploykit", opset_import: ["" : 20]>
Silu (x) => (y) { s = Sigmoid (x) y = Mul (x, s) }
"""

#: With optimizations, ONNX Runtime folds the pair of Q and DQ on x and the Relu away.
QDQ = """
<ir_version: 9, opset_import: ["" : 20]>
qdq (float[1,4] x) => (float[1,4] y)
  <float scale = {0.25}, int8 zero = {-128}>
{
  q = QuantizeLinear (x, scale, zero)
  d = DequantizeLinear (q, scale, zero)
  y = Relu (d)
}
"""


def saved(text: str, folder: Path) -> str:
    model = onnx.parser.parse_model(text)
    path = folder / "model.onnx"
    onnx.save(model, path)
    return str(path)


def image(count: int = 1) -> Any:
    return np.random.default_rng(3).standard_normal((count, 2, 3, 3), dtype=np.float32)


def test_outputs_are_those_of_onnx_runtime(tmp_path: Path) -> None:
    path = saved(GATED, tmp_path)
    x = image()
    expected = onnxruntime.InferenceSession(path).run(None, {"x": x})
    with open_runner(RunnerSpec("onnxruntime", path)) as runner:
        outputs = runner.run({"x": x})
        info = runner.info
    assert list(outputs) == ["y", "mean"]
    np.testing.assert_allclose(outputs["y"], expected[0], rtol=1e-6)
    np.testing.assert_allclose(outputs["mean"], expected[1], rtol=1e-6)
    assert (info.runtime, info.version) == ("ONNX Runtime", onnxruntime.__version__)
    assert (info.kernels, info.threads) == ("CPUExecutionProvider", 1)
    assert info.details["optimization"] == "disabled"


def test_run_all_gives_every_value_that_a_node_makes(tmp_path: Path) -> None:
    x = image()
    with open_runner(RunnerSpec("onnxruntime", saved(GATED, tmp_path))) as runner:
        values = runner.run_all({"x": x})
        again = runner.run_all({"x": x})
    assert set(values) == {"gate", "scaled", "mean", "silu", "y"}
    gate = 1 / (1 + np.exp(-x.astype(np.float64)))
    np.testing.assert_allclose(values["gate"], gate, rtol=1e-5)
    np.testing.assert_allclose(values["scaled"], gate * 0.5, rtol=1e-5)
    np.testing.assert_allclose(values["silu"], x * gate, rtol=1e-5)
    for name, value in values.items():
        np.testing.assert_array_equal(value, again[name])


def test_run_all_gives_integers_of_a_quantized_stage_and_values_with_known_types(
    tmp_path: Path,
) -> None:
    path = saved(QDQ, tmp_path)
    onnx.save(onnx.shape_inference.infer_shapes(onnx.load(path)), path)
    x = np.array([[0.3, -0.2, 40.0, 63.9]], dtype=np.float32)
    values = OrtBackend(path, {}).run_all({"x": x})
    assert values["q"].dtype == np.int8
    np.testing.assert_array_equal(values["q"], [[-127, -128, 32, 127]])
    np.testing.assert_array_equal(values["d"], [[0.25, 0.0, 40.0, 63.75]])


def test_a_batch_of_one_is_looped_over_many_samples(tmp_path: Path) -> None:
    backend = OrtBackend(saved(GATED, tmp_path), {})
    x = image(5)
    outputs = backend.run({"x": x})
    assert outputs["y"].shape == (5, 2, 3, 3)
    for i in range(5):
        alone = backend.run({"x": x[i : i + 1]})
        np.testing.assert_array_equal(outputs["y"][i : i + 1], alone["y"])
        np.testing.assert_array_equal(outputs["mean"][i : i + 1], alone["mean"])
    with pytest.raises(ValueError, match="one batch at a time"):
        backend.run_all({"x": x})


def test_a_dynamic_batch_takes_all_samples_at_once(tmp_path: Path) -> None:
    path = saved(GATED.replace("[1,2", "[N,2"), tmp_path)
    x = image(5)
    outputs = OrtBackend(path, {}).run({"x": x})
    alone = OrtBackend(saved(GATED, tmp_path), {}).run({"x": x})
    np.testing.assert_allclose(outputs["y"], alone["y"], rtol=1e-6)


def test_samples_that_are_no_multiple_of_the_batch_are_refused(tmp_path: Path) -> None:
    path = saved(GATED.replace("[1,2", "[2,2"), tmp_path)
    backend = OrtBackend(path, {})
    assert backend.run({"x": image(4)})["y"].shape == (4, 2, 3, 3)
    with pytest.raises(Exception, match="Got: 3 Expected: 2"):
        backend.run({"x": image(3)})


def test_a_quantized_stage_is_simulated_as_it_is_written(tmp_path: Path) -> None:
    """Without the optimizer, values below zero are clipped by the zero point, then by Relu."""
    path = saved(QDQ, tmp_path)
    x = np.array([[-3.0, 0.124, 0.126, 1000.0]], dtype=np.float32)
    expected = np.array([[0.0, 0.0, 0.25, 63.75]], dtype=np.float32)
    np.testing.assert_array_equal(OrtBackend(path, {}).run({"x": x})["y"], expected)


def test_unknown_options_are_refused(tmp_path: Path) -> None:
    path = saved(QDQ, tmp_path)
    with pytest.raises(ValueError, match="'thread'"):
        OrtBackend(path, {"thread": 2})
    with pytest.raises(ValueError, match="'most'"):
        OrtBackend(path, {"optimization": "most"})
    full = OrtBackend(path, {"optimization": "all", "threads": 2}).info()
    assert (full["details"]["optimization"], full["threads"]) == ("all", 2)


@pytest.mark.parametrize(
    ("content", "words"), [(None, "doesn't exist"), (b"not a model", "Protobuf|protobuf|INVALID")]
)
def test_a_file_that_onnx_runtime_refuses_is_told_in_its_words(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "broken.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunnerError, match=words):
        open_runner(RunnerSpec("onnxruntime", str(path)))


def test_a_wrong_input_is_told_and_the_runner_goes_on(tmp_path: Path) -> None:
    with open_runner(RunnerSpec("onnxruntime", saved(GATED, tmp_path))) as runner:
        with pytest.raises(RunnerError, match="x"):
            runner.run({"image": image()})
        with pytest.raises(RunnerError, match=r"float|double"):
            runner.run({"x": image().astype(np.float64)})
        assert set(runner.run({"x": image()})) == {"y", "mean"}


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_integer_sums_do_not_saturate_on_any_cpu(tmp_path: Path, dtype: str) -> None:
    """64 channels of large weights: pairs of products do not fit into 16 bits."""
    level = 120 if dtype == "int8" else 250
    text = f"""<ir_version: 9, opset_import: ["" : 17]>
        g (float[1, 64, 4, 4] x) => (float[1, 8, 4, 4] y)
        <float s = {{1.0}}, {dtype} z = {{0}}, int8 wz = {{0}}, float t = {{20000.0}}> {{
            xq = QuantizeLinear (x, s, z)
            xd = DequantizeLinear (xq, s, z)
            wd = DequantizeLinear (W, s, wz)
            c = Conv (xd, wd)
            q = QuantizeLinear (c, t, z)
            y = DequantizeLinear (q, t, z) }}"""
    model = onnx.parser.parse_model(text)
    weights = np.full((8, 64, 1, 1), 127, np.int8)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "W"))
    onnx.save(model, tmp_path / "m.onnx")
    feeds = {"x": np.full((1, 64, 4, 4), level, np.float32)}
    steps = round(64 * 127 * level / 20000.0)
    for optimization in ("disabled", "all"):
        backend = OrtBackend(str(tmp_path / "m.onnx"), {"optimization": optimization})
        np.testing.assert_array_equal(backend.run(feeds)["y"], np.float32(steps * 20000.0))
