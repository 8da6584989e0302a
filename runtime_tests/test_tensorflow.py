"""Keras models and SavedModels through the whole pipeline, verified against TensorFlow itself.

They need the extra ``tensorflow``, which is large and not part of ``all``: without it, all but the
refusals that need no TensorFlow are skipped. The models are made by a separate process, so that
TensorFlow is never imported into that of the tests.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from deploykit.bundle import Bundle, read_bundle
from deploykit.cli import main
from deploykit.errors import SourceError, UnsupportedModelError
from deploykit.model import Stage
from deploykit.passes.pipeline import advance
from deploykit.sources.load import load
from deploykit.sources.options import LoadOptions
from deploykit.sources.tensorflow_source import CHILD_ENVIRONMENT

HAS_TENSORFLOW = all(importlib.util.find_spec(p) for p in ("tensorflow", "tf2onnx"))
needs_tensorflow = pytest.mark.skipif(
    not HAS_TENSORFLOW, reason="the extra 'tensorflow' is not installed"
)

FAMILIES = {
    "MobileNet": {"alpha": 0.25},
    "MobileNetV2": {"alpha": 0.35},
    "MobileNetV3Small": {"alpha": 0.75},
    "EfficientNetB0": {},
}

_MAKE = """
import json, sys
import keras, numpy as np, tensorflow as tf
from keras import layers

folder, families = sys.argv[1], json.loads(sys.argv[2])
keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)

def train(model):
    # Statistics and scales that folding has to get right.
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            n = layer.weights[0].shape[0]
            by_name = {
                "gamma": rng.uniform(0.7, 1.3, n), "beta": rng.normal(0, 0.2, n),
                "moving_mean": rng.normal(0, 0.2, n), "moving_variance": rng.uniform(0.6, 1.5, n),
            }
            layer.set_weights([by_name[w.name].astype(np.float32) for w in layer.weights])
    return model

for name, arguments in families.items():
    net = getattr(keras.applications, name)(
        weights=None, classes=7, input_shape=(32, 32, 3), **arguments
    )
    train(net).save(f"{folder}/{name}.keras")
    if name == "MobileNetV2":
        net.export(f"{folder}/{name}", verbose=False)

# Flatten, two inputs and two outputs (one a feature map), an open image size.
a, b = keras.Input((8, 8, 3), name="left"), keras.Input((8, 8, 3), name="right")
shared = layers.Conv2D(4, 3, strides=2, padding="same", activation="relu")
joined = layers.Concatenate()([shared(a), shared(b)])
scores = layers.Dense(5, name="scores")(layers.Flatten()(joined))
keras.Model([a, b], {"map": joined, "scores": scores}).save(f"{folder}/two.keras")
keras.Sequential(
    [keras.Input((None, None, 3)), layers.DepthwiseConv2D(3), layers.GlobalMaxPooling2D()]
).save(f"{folder}/open.keras")
x = keras.Input((8, 8, 3))
keras.Model(x, layers.Lambda(lambda t: t * 2)(x)).save(f"{folder}/lambda.keras")

keras.mixed_precision.set_global_policy("mixed_float16")
x, inside = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
base = keras.Model(inside, layers.BatchNormalization()(layers.Conv2D(4, 3)(inside)))
flat = layers.Flatten()(base(layers.Rescaling(0.5)(x)))
keras.Model(x, layers.Dense(3, dtype="float32")(flat)).save(f"{folder}/mixed.keras")
keras.mixed_precision.set_global_policy("float32")

class Net(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec((1, 8, 8, 3), tf.float32)])
    def one(self, x):
        return {"y": tf.nn.relu(x)}
    @tf.function(input_signature=[tf.TensorSpec((1, 8, 8, 3), tf.float32)])
    def other(self, x):
        return {"y": tf.nn.relu6(x)}
    @tf.function(input_signature=[tf.TensorSpec((1, 8, 8, 3), tf.uint8)])
    def bytes(self, x):
        return {"y": tf.cast(x, tf.float32)}
    @tf.function(input_signature=[tf.TensorSpec((1, 8, 8, 3), tf.float32)])
    def odd(self, x):
        return {"y": tf.math.bessel_i0(x) + tf.math.digamma(x)}

class Spy(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec((1, 8, 8, 3), tf.float32)])
    def spy(self, x):
        tf.io.write_file("written", "by the graph")
        return {"y": x}

net, spy = Net(), Spy()
save = tf.saved_model.save
save(net, f"{folder}/several", signatures={"one": net.one, "other": net.other})
save(net, f"{folder}/bytes", signatures=net.bytes)
save(spy, f"{folder}/spy", signatures=spy.spy)
save(net, f"{folder}/odd", signatures=net.odd)
save(tf.Module(), f"{folder}/none")
"""


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file or folder of each kind."""
    folder = tmp_path_factory.mktemp("keras")
    subprocess.run(
        [sys.executable, "-c", _MAKE, str(folder), json.dumps(FAMILIES)],
        env={**os.environ, **CHILD_ENVIRONMENT},
        check=True,
        stderr=subprocess.DEVNULL,
    )
    return folder


def _convert(source: Path, out: Path, *flags: str) -> Bundle:
    assert main(["convert", str(source), "--to", "tflite", "--out", str(out), *flags]) == 0
    return read_bundle(out)


def _ops(path: Path) -> Counter[str]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    details = interpreter._get_ops_details()
    return Counter(d["op_name"] for d in details if d["op_name"] != "DELEGATE")


@needs_tensorflow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_keras_network_passes_without_a_transpose(
    models: Path, tmp_path: Path, family: str
) -> None:
    bundle = _convert(models / f"{family}.keras", tmp_path / "out")
    assert bundle.reference.startswith("TensorFlow 2.")
    (artifact,) = bundle.artifacts
    assert artifact.inputs[0].layout == "NHWC"
    assert artifact.inputs[0].shape == (1, 32, 32, 3)
    assert all(v.passed for v in artifact.verdicts)
    xnnpack = artifact.verdicts[0].runner
    assert xnnpack is not None
    assert xnnpack.details["partitions"] == 1
    assert not _ops(tmp_path / "out" / artifact.path)["TRANSPOSE"]


@needs_tensorflow
def test_int8_and_the_second_opinion_of_tensorflow_lite(models: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).uniform(-1, 1, (24, 3, 32, 32)).astype(np.float32)
    np.save(tmp_path / "calibration.npy", images)
    flags = ["--fp32", "--int8", "--calibrate", str(tmp_path / "calibration.npy")]
    flags += ["--allow-suspicious", "--runner", "litert", "--runner", "tensorflow-lite"]
    bundle = _convert(models / "MobileNetV2.keras", tmp_path / "out", *flags)
    for artifact in bundle.artifacts:
        found = {v.runner_name: v for v in artifact.verdicts}
        assert set(found) == {"litert", "tensorflow-lite"}
        assert all(v.passed for v in found.values())
        second = found["tensorflow-lite"].runner
        assert second is not None
        assert second.runtime == "TensorFlow Lite"
        assert not _ops(tmp_path / "out" / artifact.path)["TRANSPOSE"]


@needs_tensorflow
def test_a_saved_model_gives_what_its_keras_file_gives(models: Path) -> None:
    keras, saved = (load(models / n) for n in ("MobileNetV2.keras", "MobileNetV2"))
    assert saved.source.kind == "saved_model"
    assert saved.inputs == keras.inputs
    assert saved.inputs[0].shape == (1, 3, 32, 32)
    fused = [advance(m, Stage.FUSED) for m in (keras, saved)]
    counts = [Counter(n.op_type for n in m.graph.graph) for m in fused]
    assert counts[0] == counts[1]
    assert not counts[0]["Transpose"]
    x = {"input": np.random.default_rng(1).standard_normal((1, 3, 32, 32)).astype(np.float32)}
    first, second = (_run(m.serialized(), x) for m in fused)
    np.testing.assert_allclose(first["output"], second["output"], atol=1e-6)


def _run(model: bytes, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


@needs_tensorflow
def test_the_same_file_gives_the_same_bytes(models: Path) -> None:
    first, second = (load(models / "MobileNet.keras").serialized() for _ in range(2))
    assert first == second


@needs_tensorflow
def test_several_inputs_and_outputs_keep_their_names(models: Path, tmp_path: Path) -> None:
    bundle = _convert(models / "two.keras", tmp_path / "out")
    assert [s.name for s in bundle.inputs] == ["left", "right"]
    outputs = {s.name: s for s in bundle.outputs}
    assert {s.shape for s in outputs.values()} == {(1, 8, 4, 4), (1, 5)}
    assert all(v.passed for v in bundle.artifacts[0].verdicts)
    assert not _ops(tmp_path / "out" / bundle.artifacts[0].path)["TRANSPOSE"]


@needs_tensorflow
def test_an_open_image_size_is_pinned_as_nchw(models: Path) -> None:
    path = models / "open.keras"
    with pytest.raises(SourceError, match=r"dynamic(.|\n)*--input 1x3x224x224"):
        load(path)
    with pytest.raises(SourceError, match=r"1x24x20x3 \(NCHW"):
        load(path, options=LoadOptions(input_shape=(1, 24, 20, 3)))
    model = load(path, options=LoadOptions(input_shape=(2, 3, 24, 20)))
    assert model.inputs[0].shape == (2, 3, 24, 20)
    assert {n.metadata_props.get("deploykit.module", "") for n in model.graph.graph} > {""}


@needs_tensorflow
def test_the_mixed_precision_of_training_is_lifted(models: Path, tmp_path: Path) -> None:
    bundle = _convert(models / "mixed.keras", tmp_path / "out", "--runner", "litert")
    (verdict,) = bundle.artifacts[0].verdicts
    assert verdict.passed


@needs_tensorflow
def test_a_signature_is_chosen_by_key(models: Path) -> None:
    with pytest.raises(SourceError, match=r"2 signatures \(one, other\)(.|\n)*--key one"):
        load(models / "several")
    with pytest.raises(SourceError, match="one of one, other"):
        load(models / "several", options=LoadOptions(key="third"))
    model = load(models / "several", options=LoadOptions(key="other"))
    assert "Clip" in {n.op_type for n in model.graph.graph}


@needs_tensorflow
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lambda.keras", r"refers to code \(a layer Lambda, a lambda\)"),
        ("none", "has no signatures"),
        ("bytes", r"is uint8(.|\n)*float32 inputs"),
        ("spy", r"does more than a network for images needs \(WriteFile\)"),
    ],
)
def test_what_cannot_be_used_is_refused(models: Path, name: str, words: str) -> None:
    with pytest.raises(SourceError, match=words) as caught:
        load(models / name)
    assert caught.value.exit_code == 2


@needs_tensorflow
def test_code_of_a_file_runs_only_where_it_is_trusted(models: Path) -> None:
    model = load(models / "lambda.keras", options=LoadOptions(trust_code=True))
    assert model.inputs[0].shape == (1, 3, 8, 8)
    refused = main(["convert", str(models / "lambda.keras"), "--to", "tflite"])
    assert refused == 2


@needs_tensorflow
def test_ops_without_an_onnx_form_are_all_named(models: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"BesselI0 (.|\n)*Digamma") as caught:
        load(models / "odd")
    assert caught.value.exit_code == 3


@needs_tensorflow
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_broken_file_is_told(models: Path, tmp_path: Path, share: float) -> None:
    data = (models / "MobileNet.keras").read_bytes()
    (tmp_path / "m.keras").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(SourceError, match="damaged"):
        load(tmp_path / "m.keras")
    folder = tmp_path / "saved"
    folder.mkdir()
    graph = (models / "several" / "saved_model.pb").read_bytes()
    (folder / "saved_model.pb").write_bytes(graph[: int(len(graph) * share)])
    with pytest.raises(SourceError, match=r"damaged|cannot read"):
        load(folder, options=LoadOptions(key="one"))


@pytest.mark.skipif(HAS_TENSORFLOW, reason="the extra 'tensorflow' is installed")
def test_without_the_extra_the_command_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"\x08\x01")
    assert main(["convert", str(tmp_path), "--to", "tflite"]) == 2
    assert "pip install 'deploykit[tensorflow]'" in capsys.readouterr().err
