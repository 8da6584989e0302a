"""Files that come quantized, in every form that ONNX Runtime's own tools write.

What each stage computes is held against ONNX Runtime on the source file itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxruntime import quantization as tools

import deploykit
from deploykit.errors import UnsupportedModelError
from deploykit.graph.qdq import fold_qdq, has_qdq
from deploykit.model import Model, Precision, Stage
from deploykit.parity.metrics import snr_db
from deploykit.passes.pipeline import advance
from deploykit.target import find_target, policy_of
from deploykit_quantize.adopt_qdq import adopt_quantization
from deploykit_testing.qdq_styles import STYLES, float_model, quantized_model, samples
from deploykit_testing.reported_files import Array, quantized_gemm, with_halves, with_pixels

TARGETS = ("tflite", "coreml", "onnx", "ncnn")
WEIGHTED = ("Conv", "Gemm", "MatMul")


def run(model: bytes, inputs: Array) -> Array:
    """The first output for each sample, in ONNX Runtime without graph rewrites."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.stack([session.run(None, {name: one[None]})[0] for one in inputs])


def fused(path: Path) -> Model:
    return advance(deploykit.load(path), Stage.FUSED)


def adopted(model: Model, target: str) -> Model:
    policy = policy_of(find_target(target), Precision.INT8, {})
    assert policy is not None
    return adopt_quantization(model, policy)


def float_layers(stage: Model) -> list[str]:
    """Layers with weights that do not compute in integers."""
    folded = fold_qdq(stage.graph)
    return [
        node.name or ""
        for node in folded.model.graph
        if node.op_type in WEIGHTED and not folded.runs_in_integers(node)
    ]


class Samples(tools.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        self.feeds = iter([{"x": one[None]} for one in samples(8)])

    def get_next(self) -> dict[str, Array] | None:
        return next(self.feeds, None)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("float") / "net.onnx"
    onnx.save(float_model(), path)
    return path


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
@pytest.mark.parametrize(
    ("activations", "weights", "options"),
    [
        ("QUInt8", "QInt8", {}),
        ("QUInt8", "QUInt8", {"WeightSymmetric": False}),
        ("QInt8", "QInt8", {"ActivationSymmetric": True}),
        ("QInt8", "QInt8", {"per_channel": True}),
    ],
)
def test_static_quantization(
    source: Path,
    tmp_path: Path,
    form: str,
    activations: str,
    weights: str,
    options: dict[str, bool],
) -> None:
    path = tmp_path / "quantized.onnx"
    tools.quantize_static(
        source,
        path,
        Samples(),
        quant_format=tools.QuantFormat[form],
        activation_type=tools.QuantType[activations],
        weight_type=tools.QuantType[weights],
        per_channel=options.get("per_channel", False),
        extra_options={k: v for k, v in options.items() if k != "per_channel"},
    )
    wanted = run(path.read_bytes(), samples(8))
    model = fused(path)
    assert snr_db(run(model.serialized(), samples(8)), wanted) > 60.0
    for target in TARGETS:
        stage = adopted(model, target)
        # Only what has other integers there is another number: asymmetric weights, and ncnn's
        # symmetric activations.
        least = 35.0 if target == "ncnn" or weights == "QUInt8" else 60.0
        assert snr_db(run(stage.serialized(), samples(8)), wanted) > least
        if target != "ncnn":
            assert float_layers(stage) == []


@pytest.mark.parametrize("weights", ["QInt8", "QUInt8"])
def test_dynamic_quantization_is_read_as_floats(source: Path, tmp_path: Path, weights: str) -> None:
    path = tmp_path / "dynamic.onnx"
    tools.quantize_dynamic(source, path, weight_type=tools.QuantType[weights])
    integers = {n.op_type for n in onnx.load(path).graph.node}
    assert {"ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"} & integers
    loaded = deploykit.load(path)
    assert not has_qdq(loaded.graph)
    assert any("rounded as it runs" in note.reason for note in loaded.notes)
    model = advance(loaded, Stage.FUSED)
    assert {n.op_type for n in model.graph.graph} <= {
        "Add", "Clip", "Conv", "Gemm", "ReduceMean", "Relu", "Reshape",
    }  # fmt: skip
    wanted = run(path.read_bytes(), samples(8))
    assert snr_db(run(model.serialized(), samples(8)), wanted) > 40.0


@settings(max_examples=25, deadline=None)
@given(
    activations=st.sampled_from(["int8", "uint8"]),
    weights=st.sampled_from(["int8", "uint8"]),
    per_channel=st.booleans(),
    transposed=st.booleans(),
    product=st.sampled_from(["Gemm", "MatMul"]),
    bias=st.sampled_from(["int32", "float", "none"]),
    alpha=st.sampled_from([1.0, 0.5]),
    seed=st.integers(0, 9),
)
def test_a_linear_layer_in_any_style_is_within_one_step(
    tmp_path_factory: pytest.TempPathFactory, product: str, **style: Any
) -> None:
    if product == "MatMul":
        style |= {"transposed": False, "alpha": 1.0}
    path = tmp_path_factory.mktemp("gemm") / "gemm.onnx"
    onnx.save(quantized_gemm(product=product, **style), path)
    inputs = np.random.default_rng(1).uniform(-2.3, 3.5, (16, 8)).astype(np.float32)
    wanted = run(path.read_bytes(), inputs)
    model = fused(path)
    assert [n.op_type for n in model.graph.graph if n.op_type in WEIGHTED] == ["Gemm"]
    for target in ("tflite", "onnx"):
        stage = adopted(model, target)
        assert float_layers(stage) == []
        worst = np.abs(run(stage.serialized(), inputs) - wanted).max()
        assert worst <= 30 / 255 * 1.001


def test_int16_activations_are_refused_by_name(tmp_path: Path) -> None:
    onnx.save(quantized_gemm(activations="int16", weights="int8"), tmp_path / "wide.onnx")
    model = fused(tmp_path / "wide.onnx")
    for target in TARGETS:
        with pytest.raises(UnsupportedModelError, match=r"int16 activations.*\n.*\n.*8 bits"):
            adopted(model, target)


def test_pixels_that_the_graph_casts_and_normalizes_are_floats_outside(tmp_path: Path) -> None:
    path = tmp_path / "pixels.onnx"
    onnx.save(with_pixels(quantized_model(STYLES["onnxruntime"])), path)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)).astype(np.uint8)
    wanted = run(path.read_bytes(), pixels)
    model = fused(path)
    assert [(i.name, i.dtype) for i in model.inputs] == [("pixels", "float32")]
    for stage in (model, adopted(model, "tflite")):
        assert snr_db(run(stage.serialized(), pixels.astype(np.float32)), wanted) > 40.0


@pytest.mark.parametrize("quantized", [False, True])
def test_float16_is_read_as_float32(tmp_path: Path, quantized: bool) -> None:
    path = tmp_path / "half.onnx"
    net = quantized_model(STYLES["pt2e"]) if quantized else float_model()
    onnx.save(with_halves(net), path)
    inputs = samples(8).astype(np.float16)
    wanted = run(path.read_bytes(), inputs)
    model = fused(path)
    assert {v.dtype.name for v in model.graph.graph.initializers.values() if v.dtype} <= {
        "FLOAT", "INT8", "INT64", "INT32", "UINT8",
    }  # fmt: skip
    assert model.inputs[0].dtype == "float32"
    assert snr_db(run(model.serialized(), inputs.astype(np.float32)), wanted) > 60.0


def test_an_input_of_integers_becomes_one_of_floats_behind_a_quantization(tmp_path: Path) -> None:
    model = quantized_gemm()
    nodes = [n for n in model.graph.node if n.op_type != "QuantizeLinear" or n.input[0] != "x"]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.input[0].name = "a_q"
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    onnx.save(model, tmp_path / "integers.onnx")
    integers = np.random.default_rng(0).integers(0, 256, (8, 8)).astype(np.uint8)
    wanted = run((tmp_path / "integers.onnx").read_bytes(), integers)
    reals = (integers.astype(np.float32) - 100) * np.float32(6 / 255)
    found = run(adopted(fused(tmp_path / "integers.onnx"), "tflite").serialized(), reals)
    assert np.abs(found - wanted).max() <= 30 / 255 * 1.001
