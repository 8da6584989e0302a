"""Packages: deterministic, named, typed; images, labels, compressed weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from deploykit.errors import ContractError, NoIntegerLayersError
from deploykit.model import Model, Precision
from deploykit.preprocess import Preprocess
from deploykit.target import ArtifactRequest
from deploykit_coreml import TARGET
from deploykit_coreml.package_format import MANIFEST, MODEL_FILE, WEIGHTS_FILE
from deploykit_coreml.reference_backend import ReferenceBackend
from deploykit_quantize.policy import Recipe
from deploykit_quantize.weight_only import quantize_weights
from deploykit_testing.coreml import (
    error_of,
    normal,
    quantized,
    random_inputs,
    run_onnxruntime,
    stage_of,
    write,
)

CONTRACT = Preprocess(size=(8, 8), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


def network(channels: int = 3) -> Model:
    """A convolution of 1,152 weights and a linear layer: images to 5 scores."""
    return stage_of(
        "c = Conv<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(image, W, B)"
        " h = HardSwish(c) m = ReduceMean<keepdims=0>(h, axes) scores = Gemm<transB=1>(m, G, D)",
        f"float[1,{channels},8,8] image",
        "scores",
        {
            "W": normal(128, channels, 3, 3),
            "B": normal(128),
            "G": normal(5, 128),
            "D": normal(5),
            "axes": np.asarray([2, 3]),
        },
    )


def again(model: Model) -> Model:
    return replace(model, graph=ir.from_proto(ir.to_proto(model.graph)))


@pytest.mark.parametrize("precision", TARGET.precisions)
def test_two_writes_are_the_same_bytes(precision: Precision) -> None:
    model = network()
    stage = quantized(model, random_inputs(model)) if precision is Precision.INT8 else model
    first, second = (
        TARGET.write(source, ArtifactRequest(precision)) for source in (stage, again(stage))
    )
    assert first.files("m") == second.files("m")
    assert list(first.files("m")) == [
        f"m.mlpackage/{path}" for path in (MODEL_FILE, WEIGHTS_FILE, MANIFEST)
    ]


def test_no_date_and_nobody_elses_metadata(tmp_path: Path) -> None:
    written = write(tmp_path, network())
    assert set(written.package.metadata) == {
        "deploykit.precision",
        "deploykit.version",
        "shortDescription",
    }
    assert written.package.metadata["shortDescription"] == "tiny, fp32"


def test_names_and_types_are_those_of_the_model(tmp_path: Path) -> None:
    for precision in (Precision.FP32, Precision.FP16, Precision.W8):
        written = write(tmp_path, network(), precision)
        (source,), (result,) = written.artifact.inputs, written.artifact.outputs
        assert (source.name, source.shape, source.dtype) == ("image", (1, 3, 8, 8), "float32")
        assert source.layout == "NCHW"
        assert (result.name, result.shape, result.dtype) == ("scores", (1, 5), "float32")
        features = written.package.features
        assert {(f.name, f.kind, f.dtype, f.shape) for f in features.values()} == {
            ("image", "tensor", "float32", (1, 3, 8, 8)),
            ("scores", "tensor", "float32", (1, 5)),
        }


def test_float16_ends(tmp_path: Path) -> None:
    model = network()
    inputs = random_inputs(model)
    written = write(tmp_path, model, Precision.FP16, io="float16")
    assert written.package.opset == "CoreML6"
    assert "cast" not in written.ops
    assert {f.dtype for f in written.package.features.values()} == {"float16"}
    assert written.artifact.inputs[0].dtype == "float16"
    wanted = run_onnxruntime(model, inputs)["scores"]
    assert error_of(written.run(inputs)["scores"], wanted) < 1e-2


@pytest.mark.parametrize("ios", ["15", "16", "17", "18"])
def test_every_deployment_target(ios: str, tmp_path: Path) -> None:
    model = network()
    inputs = random_inputs(model)
    written = write(tmp_path, model, Precision.FP32, ios=ios)
    assert written.package.opset == f"CoreML{int(ios) - 10}"
    wanted = run_onnxruntime(model, inputs)["scores"]
    assert error_of(written.run(inputs)["scores"], wanted) < 3e-6


def test_names_that_core_ml_has_not_are_made_valid(tmp_path: Path) -> None:
    model = stage_of("a = Relu(x) y = Neg(a)", "float[1,4] x", "y")
    graph = model.graph.graph
    graph.inputs[0].name, graph.outputs[0].name = "0::in.put", "tensor"
    next(iter(graph)).outputs[0].name = "0__in_put"
    artifact = TARGET.write(model, ArtifactRequest(Precision.FP32))
    (given,), (made,) = artifact.inputs, artifact.outputs
    assert (given.name, given.runtime_name) == ("0::in.put", "v_0__in_put")
    assert (made.name, made.runtime_name) == ("tensor", "v_tensor")
    assert artifact.value_names == {"0__in_put": "v_0__in_put_2", "tensor": "v_tensor"}


def test_values_can_be_asked_for_by_name(tmp_path: Path) -> None:
    model = network()
    inputs = random_inputs(model)
    written = write(tmp_path, model)
    values = ReferenceBackend(str(written.folder), {}).run_all(inputs)
    wanted = run_onnxruntime(model, inputs, everything=True)
    assert set(written.artifact.value_names) == set(wanted)
    for value, tensor in written.artifact.value_names.items():
        spec = written.artifact.value_specs[tensor]
        assert error_of(spec.decode(values[tensor]), wanted[value]) < 3e-6


def test_int8_values_are_on_their_grids(tmp_path: Path) -> None:
    model = network()
    inputs = random_inputs(model)
    stage = quantized(model, inputs)
    written = write(tmp_path, stage, Precision.INT8, compute="float32")
    values = ReferenceBackend(str(written.folder), {}).run_all(inputs)
    wanted = run_onnxruntime(stage, inputs, everything=True)
    verified = 0
    for value, tensor in written.artifact.value_names.items():
        spec = written.artifact.value_specs[tensor]
        if spec.quantization is None:
            continue
        verified += 1
        assert values[tensor].dtype == np.int8
        assert np.abs(spec.decode(values[tensor]) - wanted[value]).max() <= (
            1.1 * spec.quantization.scale[0]
        )
    assert verified == 5  # the image, what both layers, the curve and the mean give
    assert written.artifact.output_steps["scores"].dtype == "int8"


@pytest.mark.parametrize("color", ["RGB", "BGR"])
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
def test_image_input_is_normalized_inside(color: str, precision: Precision, tmp_path: Path) -> None:
    model = replace(network(), preprocess=replace(CONTRACT, color=color))
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert model.preprocess is not None
    tensor = {"image": model.preprocess.apply(image)[None]}
    wanted = run_onnxruntime(model, tensor)["scores"]
    written = write(tmp_path, model, precision, input="image")
    feature = written.package.features["image"]
    assert (feature.kind, feature.dtype, feature.shape) == ("image", color, (8, 8))
    found = written.run(tensor)["scores"]
    assert error_of(found, wanted) < (3e-6 if precision is Precision.FP32 else 5e-3)
    pixels = ReferenceBackend(str(written.folder), {}).run_all(tensor)["image"]
    ordered = image[..., ::-1] if color == "BGR" else image
    np.testing.assert_allclose(pixels[0], ordered.transpose(2, 0, 1), atol=1e-4)


def test_grey_image(tmp_path: Path) -> None:
    contract = Preprocess(size=(8, 8), color="GRAY", mean=(0.3,), std=(0.5,))
    model = replace(network(1), preprocess=contract)
    written = write(tmp_path, model, Precision.FP16, input="image")
    assert written.package.features["image"].dtype == "GRAY"
    assert json.loads(written.package.metadata["deploykit.preprocess"])["mean"] == [0.3]


def test_classifier(tmp_path: Path) -> None:
    labels = ("a", "b", "c", "d", "e")
    model = replace(network(), labels=labels)
    inputs = random_inputs(model)
    written = write(tmp_path, model, Precision.FP32, classifier="yes")
    features = written.package.features
    assert features["classLabel"].kind == "text"
    assert features["classLabel_probs"].kind == "dictionary"
    assert [s.name for s in written.artifact.outputs] == ["scores"]
    found = ReferenceBackend(str(written.folder), {}).run(inputs)
    wanted = run_onnxruntime(model, inputs)["scores"][0]
    assert found["classLabel"].tolist() == [int(wanted.argmax())]
    shares = np.exp(wanted - wanted.max())
    np.testing.assert_allclose(found["classLabel_probs"], shares / shares.sum(), rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({}, {"input": "image"}, "without a preprocessing contract"),
        ({"preprocess": replace(CONTRACT, color="GRAY", mean=(0.1,), std=(1.0,))},
         {"input": "image"}, "inputs of shape"),
        ({}, {"classifier": "yes"}, "without labels"),
        ({"labels": ("a", "b")}, {"classifier": "yes"}, r"outputs of shape \[\(1, 5\)\]"),
    ],
)  # fmt: skip
def test_what_the_model_lacks_is_refused(
    changes: dict[str, object], options: dict[str, str], words: str
) -> None:
    model = replace(network(), **changes)  # type: ignore[arg-type]
    with pytest.raises(ContractError, match=words):
        TARGET.write(model, ArtifactRequest(Precision.FP32, options))


def test_precision_must_fit_the_stage() -> None:
    model = network()
    stage = quantized(model, random_inputs(model))
    with pytest.raises(NoIntegerLayersError, match="not quantized"):
        TARGET.write(model, ArtifactRequest(Precision.INT8))
    with pytest.raises(ContractError, match="quantized activations"):
        TARGET.write(stage, ArtifactRequest(Precision.FP32))
    weights = quantize_weights(model, Recipe.parse("weight_only_wi8"))
    with pytest.raises(ContractError, match="quantized weights"):
        TARGET.write(weights, ArtifactRequest(Precision.INT8))


def test_w8_is_what_weight_only_quantization_gives(tmp_path: Path) -> None:
    model = network()
    inputs = random_inputs(model)
    stage = quantize_weights(model, Recipe.parse("weight_only_wi8"))
    wanted = run_onnxruntime(stage, inputs)["scores"]
    for source in (model, stage):
        written = write(tmp_path, source, Precision.W8, compute="float32")
        # The linear layer's 640 weights are too few to be worth it.
        assert written.ops["constexpr_affine_dequantize"] == 1
        assert error_of(written.run(inputs)["scores"], wanted) < 3e-6


def test_a_scale_of_w8_never_cuts_off_a_weight(tmp_path: Path) -> None:
    """Scales are rounded to float16 upwards, so that the largest weight keeps its size."""
    model = network()
    written = write(tmp_path, model, Precision.W8)
    (op,) = [o for o in written.steps if o.type == "constexpr_affine_dequantize"]
    integers, scale = op.attributes["quantized_data"], op.attributes["scale"]
    assert isinstance(integers, np.ndarray)
    assert isinstance(scale, np.ndarray)
    assert scale.dtype == np.float16
    weights = normal(128, 3, 3, 3)
    held = integers.astype(np.float64) * scale.astype(np.float64).reshape(-1, 1, 1, 1)
    step = scale.astype(np.float64).reshape(-1, 1, 1, 1)
    assert (np.abs(held - weights) <= 0.5001 * step).all()


@pytest.mark.parametrize(
    ("options", "decibel"),
    [
        ({"palettize": "8"}, 38.0),
        ({"palettize": "6"}, 28.0),
        ({"palettize": "4"}, 16.0),
        ({"palettize": "4", "ios": "18"}, 16.0),
        ({"palettize": "6", "ios": "18"}, 28.0),
        ({"palettize": "4", "palette_channels": "16"}, 17.0),
    ],
)
def test_palettes(options: dict[str, str], decibel: float, tmp_path: Path) -> None:
    model = network()
    inputs = random_inputs(model)
    wanted = run_onnxruntime(model, inputs)["scores"]
    written = write(tmp_path, model, Precision.W8, **options)
    assert written.ops["constexpr_lut_to_dense"] == 1
    noise = written.run(inputs)["scores"] - wanted
    snr = 10 * np.log10(np.square(wanted).sum() / np.square(noise).sum())
    assert snr > decibel


def test_palettes_take_the_bits_that_they_name() -> None:
    model = network()

    def size(**options: str) -> int:
        artifact = TARGET.write(model, ArtifactRequest(Precision.W8, options))
        return len(artifact.companions[f".mlpackage/{WEIGHTS_FILE}"])

    weights = 128 * 27
    assert size(palettize="8") - size(palettize="6") == pytest.approx(
        weights / 4 + 2 * 192, abs=130
    )
    assert size(palettize="6") - size(palettize="4") == pytest.approx(weights / 4 + 2 * 48, abs=130)


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    model = stage_of(
        "s = Add(a, b) t = Relu(s) u = Mul(s, b)", "float[1,4] a, float[1,4] b", "t, s, u"
    )
    inputs = random_inputs(model)
    for precision in (Precision.FP32, Precision.FP16):
        written = write(tmp_path, model, precision)
        found = written.run(inputs)
        for name, want in run_onnxruntime(model, inputs).items():
            assert error_of(found[name], want) < 2e-3
