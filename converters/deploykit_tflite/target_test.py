"""The target object: options, errors, determinism, names, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from deploykit.errors import (
    ContractError,
    MissingDependencyError,
    NoIntegerLayersError,
    UnsupportedOpsError,
)
from deploykit.graph.ops import CANONICAL_OPS, QDQ_OPS
from deploykit.model import Model, Precision
from deploykit.runners.registry import available_runners
from deploykit.target import ArtifactRequest, Target, find_target
from deploykit_testing.tflite import (
    quantized,
    random_inputs,
    run_onnxruntime,
    stage_of,
    write,
)
from deploykit_tflite import TARGET, write_flatbuffer
from deploykit_tflite.lower_graph import TABLE


def convolution() -> Model:
    generator = np.random.default_rng(0)
    return stage_of(
        "c = Conv<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1], dilations=[1,1], group=1>"
        "(image, W, B) scores = Relu(c)",
        "float[1,3,8,8] image",
        "scores",
        {
            "W": generator.standard_normal((4, 3, 3, 3)).astype(np.float32),
            "B": generator.standard_normal(4).astype(np.float32),
        },
    )


def test_it_is_found_by_its_entry_point() -> None:
    target = find_target("tflite")
    assert target is TARGET
    assert isinstance(target, Target)
    assert [p.value for p in target.precisions] == ["fp32", "fp16", "w8", "int8"]
    names = [r.name for r in target.runners]
    assert names[:4] == ["litert", "litert-reference", "tensorflow-lite", "tflite-runtime"]
    assert names[4:7] == ["litert-old", "tflite-micro", "ethos-u"]
    assert names[7:] == ["litert-arm64", "litert-reference-arm64"]
    assert [r.name for r in available_runners(target.runners)] == names[:2]


def test_importing_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, deploykit_tflite; "
        "deploykit_tflite.TARGET.runners; "
        "heavy = {'flatbuffers', 'ai_edge_litert', 'onnx', 'onnx_ir', 'onnxruntime', 'torch'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_writing_does_not_import_the_runtime() -> None:
    code = (
        "import sys; from deploykit_tflite.write_flatbuffer import load_schema; load_schema(); "
        "print([m for m in sys.modules if m.startswith('ai_edge_litert')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['ai_edge_litert', 'ai_edge_litert.schema_py_generated']"


def test_every_canonical_op_has_a_lowering_or_a_reason() -> None:
    known = TABLE.ops | set(TABLE.refused)
    assert {(op.domain, op.op_type) for op in CANONICAL_OPS} <= known
    assert {("", op) for op in QDQ_OPS} <= known


def test_all_unknown_ops_are_reported_at_once() -> None:
    model = stage_of("a = Sin(x) b = Relu(a) y = Cos(b)", "float[1,3] x", "y")
    with pytest.raises(UnsupportedOpsError) as caught:
        write(model)
    assert [op.op_type for op in caught.value.ops] == ["Sin", "Cos"]


def test_two_writes_are_the_same_bytes() -> None:
    model = convolution()
    stage = quantized(model, random_inputs(model))
    for precision in TARGET.precisions:
        source = stage if precision is Precision.INT8 else model
        again = Model(
            ir.from_proto(ir.to_proto(source.graph)), source.stage, source.name, source.source
        )
        assert write(source, precision).artifact.data == write(again, precision).artifact.data


def test_inputs_and_outputs_are_named_as_in_the_model() -> None:
    artifact = write(convolution()).artifact
    assert [(s.name, s.shape, s.layout, s.dtype) for s in artifact.inputs] == [
        ("image", (1, 8, 8, 3), "NHWC", "float32")
    ]
    assert [(s.name, s.shape, s.layout) for s in artifact.outputs] == [
        ("scores", (1, 4, 4, 4), "NHWC")
    ]
    assert artifact.value_names == {"image": "image", "scores": "scores"}


def test_nchw_input_costs_one_transpose() -> None:
    model = convolution()
    written = write(model, input_layout="NCHW")
    assert written.ops == ["TRANSPOSE", "PAD", "CONV_2D"]
    assert written.artifact.inputs[0].shape == (1, 3, 8, 8)
    assert written.artifact.inputs[0].layout == "NCHW"
    inputs = random_inputs(model)
    expected = run_onnxruntime(model, inputs)["scores"]
    np.testing.assert_allclose(written.run(inputs)["scores"], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("io", "dtype", "ops"),
    [
        ("auto", "int8", ["PAD", "CONV_2D"]),
        ("int8", "int8", ["PAD", "CONV_2D"]),
        ("uint8", "uint8", ["QUANTIZE", "PAD", "CONV_2D", "QUANTIZE"]),
        ("float32", "float32", ["QUANTIZE", "PAD", "CONV_2D", "DEQUANTIZE"]),
    ],
)
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_io(io: str, dtype: str, ops: list[str], layout: str) -> None:
    model = convolution()
    inputs = random_inputs(model)
    stage = quantized(model, inputs)
    written = write(stage, Precision.INT8, io=io, input_layout=layout)
    assert [op for op in written.ops if op != "TRANSPOSE"] == ops
    assert written.ops.count("TRANSPOSE") == (layout == "NCHW")
    for spec, name in (
        (written.artifact.inputs[0], "image"),
        (written.artifact.outputs[0], "scores"),
    ):
        assert spec.dtype == dtype
        assert spec.name == name
    wanted = run_onnxruntime(stage, inputs)["scores"]
    scale = write(stage, Precision.INT8).artifact.outputs[0].quantization.scale[0]
    for kernels in ("reference", "xnnpack"):
        assert np.abs(written.run(inputs, kernels)["scores"] - wanted).max() <= 1.001 * scale


@pytest.mark.parametrize(
    ("precision", "options", "words"),
    [
        (Precision.FP32, {"colour": "red"}, "no option 'colour'"),
        (Precision.FP32, {"io": "int4"}, "io is 'int4'"),
        (Precision.FP32, {"input_layout": "CHWN"}, "input_layout"),
        (Precision.FP32, {"io": "int8"}, "--io int8"),
    ],
)
def test_contradicting_options(precision: Precision, options: dict[str, str], words: str) -> None:
    with pytest.raises(ContractError, match=words):
        TARGET.write(convolution(), ArtifactRequest(precision, options))


def test_a_float_stage_is_not_written_as_int8() -> None:
    with pytest.raises(NoIntegerLayersError, match="not quantized"):
        TARGET.write(convolution(), ArtifactRequest(Precision.INT8))


def test_a_quantized_stage_is_not_written_as_floats() -> None:
    model = convolution()
    with pytest.raises(ContractError, match="is quantized"):
        write(quantized(model, random_inputs(model)))


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(MissingDependencyError, match=r"deploykit\[tflite\]"):
        write_flatbuffer.load_schema()


def test_recognizes_by_content(tmp_path: Path) -> None:
    path = tmp_path / "no_suffix"
    path.write_bytes(write(convolution()).artifact.data)
    assert TARGET.recognizes(path)
    path.write_bytes(b"PK\x03\x04 something else")
    assert not TARGET.recognizes(path)
    assert not TARGET.recognizes(tmp_path / "missing")
    assert not TARGET.recognizes(tmp_path)


def test_dynamic_shapes_are_refused_with_the_way_out() -> None:
    model = stage_of("y = Relu(x)", "float[N,3] x", "y")
    with pytest.raises(Exception, match="dynamic shape"):
        write(model)
