"""The target object: what it writes of each precision, and what it says of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from deploykit.errors import ContractError, NoIntegerLayersError, UnsupportedOpsError
from deploykit.model import Model, Precision, Stage
from deploykit.target import ArtifactRequest, find_target
from deploykit_onnx import TARGET
from deploykit_quantize.quantizer import quantize_model
from deploykit_quantize.weight_only import quantize_weights
from deploykit_testing.graphs import as_model, parse, random_feeds
from deploykit_testing.quantized import NETWORK, calibrate, fused


@pytest.fixture(scope="module")
def model() -> Model:
    return fused(NETWORK)


def quantized(model: Model, **options: str) -> Model:
    policy = TARGET.policy(Precision.INT8, options)
    assert policy is not None
    return quantize_model(model, policy, calibrate(model))


def test_it_is_found_by_its_entry_point() -> None:
    assert find_target("onnx") is TARGET
    names = ["onnxruntime-optimized", "onnxruntime-plain", "onnxruntime-ort"]
    names += ["onnxruntime-old", "onnxruntime-arm64"]
    assert [r.name for r in TARGET.runners] == names


def test_importing_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, deploykit_onnx; "
        "print(sorted({'numpy', 'onnx', 'onnx_ir', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_float_file_gives_what_the_stage_gives(model: Model) -> None:
    artifact = TARGET.write(model, ArtifactRequest(Precision.FP32))
    feeds = random_feeds(model.graph)
    wanted, found = (
        onnxruntime.InferenceSession(data).run(None, feeds)[0]
        for data in (model.serialized(), artifact.data)
    )
    np.testing.assert_array_equal(found, wanted)
    assert artifact.suffix == ".onnx"
    assert artifact.companions == {}
    assert artifact.value_names["ghost"] == "ghost"


def test_functions_are_written_out_with_static_shapes() -> None:
    from deploykit.graph.functions import add_function
    from deploykit.passes.infer_shapes import InferShapes

    text = """g (float[1, 4, 5, 5] a, float[1, 4, 5, 5] b)
        => (float[1, 4, 5, 5] y, float[1, 4, 5, 5] z) {
        s = deploykit.ChannelShuffle <groups = 2> (a)
        y, z = deploykit.ConcatShuffleSplit <groups = 2> (s, b) }"""
    header = '<ir_version: 9, opset_import: ["" : 20, "deploykit" : 1]>\n'
    graph = parse(text, header=header)
    for name in ("ChannelShuffle", "ConcatShuffleSplit"):
        add_function(graph, name)
    for node in graph.graph:
        for output in node.outputs:
            output.shape, output.type = graph.graph.inputs[0].shape, graph.graph.inputs[0].type
    InferShapes().apply(graph)
    stage = as_model(graph, Stage.FUSED)
    artifact = TARGET.write(stage, ArtifactRequest(Precision.FP32))
    written = onnx.load_from_string(artifact.data)
    assert not written.functions
    assert {n.domain for n in written.graph.node} == {""}
    assert "Shape" not in {n.op_type for n in written.graph.node}
    feeds = random_feeds(graph)
    sessions = [onnxruntime.InferenceSession(d) for d in (stage.serialized(), artifact.data)]
    for wanted, found in zip(*(s.run(None, feeds) for s in sessions), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_integers_have_their_scales(model: Model) -> None:
    artifact = TARGET.write(quantized(model), ArtifactRequest(Precision.INT8))
    assert set(artifact.output_steps) == {"y"}
    dtypes = {s.quantization.dtype for s in artifact.value_specs.values() if s.quantization}
    assert dtypes == {"int8"}


def test_saturation_is_warned_of_where_it_can_happen(model: Model) -> None:
    request = ArtifactRequest(Precision.INT8)
    for activations in ("int8", "uint8"):
        whole = TARGET.write(quantized(model, activations=activations), request)
        assert "without VNNI" in whole.warnings[0]
        reduced = quantized(model, activations=activations, reduce_range="yes")
        assert TARGET.write(reduced, request).warnings == ()


def test_two_writings_are_byte_identical(model: Model) -> None:
    request = ArtifactRequest(Precision.INT8, {"ort": "yes"})
    one, other = (TARGET.write(quantized(model), request).files("m") for _ in range(2))
    assert one == other
    assert sorted(one) == ["m.onnx", "m.ort", "m.required_operators.config"]


def test_a_float_stage_is_no_integer_file(model: Model) -> None:
    with pytest.raises(NoIntegerLayersError, match="not quantized"):
        TARGET.write(model, ArtifactRequest(Precision.INT8))


def test_a_model_whose_weights_are_all_too_small_for_w8_keeps_its_floats(model: Model) -> None:
    policy = TARGET.policy(Precision.W8)
    assert policy is not None
    stage = quantize_weights(model, policy.recipe, smallest_weights=1 << 30)
    floats = TARGET.write(model, ArtifactRequest(Precision.FP32))
    assert TARGET.write(stage, ArtifactRequest(Precision.W8)).data == floats.data


def test_a_quantized_stage_is_no_float_file(model: Model) -> None:
    policy = TARGET.policy(Precision.W8)
    assert policy is not None
    stage = quantize_weights(model, policy.recipe, smallest_weights=1)
    assert TARGET.write(stage, ArtifactRequest(Precision.W8)).summary["ops"] > 0
    with pytest.raises(ContractError, match="is quantized"):
        TARGET.write(stage, ArtifactRequest(Precision.FP32))


def test_an_op_beyond_the_canonical_set_is_refused() -> None:
    stage = as_model(parse("g (float[1, 4] x) => (float[1, 4] y) { y = Mish (x) }"), Stage.FUSED)
    with pytest.raises(UnsupportedOpsError, match="Mish"):
        TARGET.write(stage, ArtifactRequest(Precision.FP32))


def test_ort_files_are_recognized_and_listed(model: Model, tmp_path: Path) -> None:
    artifact = TARGET.write(model, ArtifactRequest(Precision.FP32, {"ort": "yes"}))
    for name, data in artifact.files("m").items():
        (tmp_path / name).write_bytes(data)
    assert TARGET.recognizes(tmp_path / "m.ort")
    assert not TARGET.recognizes(tmp_path / "m.onnx")
    assert not TARGET.recognizes(tmp_path / "missing")
    assert "com.microsoft 1: FusedConv" in TARGET.inspect(tmp_path / "m.ort")
