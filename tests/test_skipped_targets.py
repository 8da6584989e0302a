"""Several targets, one of which refuses the model: the others are written, and all is reported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from deploykit.bundle import read_bundle
from deploykit.cli import main
from deploykit.model import Model, Stage


def flipped(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network with its feature map read backwards: a Slice that only ONNX Runtime has."""
    values = {"starts": -1, "ends": -100, "axes": 3, "steps": -1}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array([value], np.int64), name) for name, value in values.items()
    )
    flip = helper.make_node("Slice", ["r", *values], ["backwards"], "flip")
    flip.metadata_props.add(key="deploykit.module", value="head")
    nodes = list(model.graph.node)
    (place,) = (i for i, node in enumerate(nodes) if node.op_type == "GlobalAveragePool")
    nodes[place].input[0] = "backwards"
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:place], flip, *nodes[place:]])
    return model


@pytest.fixture
def flip_onnx(tmp_path: Path, build_network: Callable[..., onnx.ModelProto]) -> Path:
    path = tmp_path / "flip.onnx"
    onnx.save(flipped(build_network()), path)
    return path


def convert(model: Path, out: Path, *arguments: str | Path) -> int:
    words = ["convert", model, "--out", out, "--quiet", "--samples", "2", *arguments]
    return main([str(w) for w in words])


def test_an_op_that_some_targets_lack_leaves_out_those_alone(
    flip_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "b"
    assert convert(flip_onnx, out, "--to", "tflite,ncnn,onnx", "--fp32") == 3
    text = capsys.readouterr().out
    assert "1 node cannot be lowered to tflite" in text
    assert "Slice (node 'flip' in module 'head'): a slice that runs backwards" in text
    for target in ("tflite", "ncnn"):
        assert any(row.split()[:2] == [target, "fp32"] and row.endswith("REFUSED")
                   for row in text.splitlines())  # fmt: skip
    bundle = read_bundle(out)
    assert [a.target for a in bundle.artifacts] == ["onnx"]
    assert all(v.passed for v in bundle.artifacts[0].verdicts)
    skipped = {entry.target: entry for entry in bundle.skipped}
    assert set(skipped) == {"tflite", "ncnn"}
    for entry in skipped.values():
        assert entry.refused
        assert entry.precision == "fp32"
        (op,) = entry.ops
        assert (op.op_type, op.node, op.module_path) == ("Slice", "flip", "head")
        assert op.reason
        assert op.reason in entry.reason
    written = json.loads((out / "deploykit.json").read_text())["left_out"]
    assert written[0]["ops"][0]["module_path"] == "head"
    assert main(["verify", str(out)]) == 0, "what was written is sound"
    assert "left out: ncnn fp32: 1 node" in capsys.readouterr().out


def test_both_precisions_are_left_out_and_told_once(
    flip_onnx: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--to", "ncnn,onnx", "--fp32", "--int8", "--calibrate", images)
    assert convert(flip_onnx, tmp_path / "b", *arguments, "--no-verify") == 3
    text = capsys.readouterr().out
    assert text.count("left out: ncnn fp32, int8: 1 node cannot be lowered") == 1
    assert "not verified" in text
    bundle = read_bundle(tmp_path / "b")
    assert [(a.target, a.precision) for a in bundle.artifacts] == [
        ("onnx", "fp32"),
        ("onnx", "int8"),
    ]
    assert [(o.target, o.precision) for o in bundle.skipped] == [
        ("ncnn", "fp32"),
        ("ncnn", "int8"),
    ]


def test_a_model_that_one_target_cannot_hold_at_all_leaves_out_that_one(
    tmp_path: Path,
    build_network: Callable[..., onnx.ModelProto],
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "two.onnx"
    onnx.save(build_network(batch=2), path)
    assert convert(path, tmp_path / "b", "--to", "ncnn,tflite", "--fp32", "--json") == 3
    report = json.loads(capsys.readouterr().out)
    (entry,) = report["left_out"]
    assert (entry["target"], entry["refused"], entry["ops"]) == ("ncnn", True, [])
    assert "(2, 3, 8, 8)" in entry["reason"]
    assert report["passed"] is True
    assert {v["target"] for v in report["verdicts"]} == {"tflite"}


def test_a_failed_verdict_counts_more_than_a_refusal(flip_onnx: Path, tmp_path: Path) -> None:
    arguments = ("--to", "ncnn,onnx", "--fp32", "--limit", "fp32.snr_db=500")
    assert convert(flip_onnx, tmp_path / "b", *arguments) == 1


def test_one_target_alone_that_refuses_writes_nothing(
    flip_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(flip_onnx, tmp_path / "b", "--to", "tflite", "--fp32", "--fp16") == 3
    assert capsys.readouterr().err.startswith("error: 1 node cannot be lowered to tflite")
    assert not (tmp_path / "b").exists()


def test_where_each_of_several_refuses_nothing_is_written_and_each_is_told(
    flip_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(flip_onnx, tmp_path / "b", "--to", "tflite,ncnn", "--fp32") == 3
    error = capsys.readouterr().err
    assert error.startswith("error: each of tflite, ncnn refuses the model\n  1 node")
    assert "cannot be lowered to tflite" in error
    assert "cannot be lowered to ncnn" in error
    assert not (tmp_path / "b").exists()


def test_what_all_leaves_out_by_itself_is_told_and_no_failure(
    tiny_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(tiny_onnx, tmp_path / "b", "--to", "all", "--w8", "--no-verify") == 0
    assert "left out: ncnn w8: ncnn writes fp32, fp16, int8" in capsys.readouterr().out
    bundle = read_bundle(tmp_path / "b")
    assert {a.target for a in bundle.artifacts} == {"coreml", "onnx", "tflite"}
    assert [(o.target, o.precision, o.refused) for o in bundle.skipped] == [("ncnn", "w8", False)]


def save_transposed(path: Path) -> Path:
    """A network without a layer that ncnn or ONNX Runtime compute in integers."""
    nodes = [helper.make_node("ConvTranspose", ["x", "w"], ["y"], "up", strides=[2, 2])]
    weights = np.random.default_rng(0).normal(size=(3, 4, 2, 2)).astype(np.float32)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 4, 16, 16])],
        [numpy_helper.from_array(weights, "w")],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def test_an_error_inside_one_target_costs_its_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_onnx: Path
) -> None:
    from deploykit_ncnn import target

    def fails(*_: object) -> None:
        raise KeyError("y1")

    monkeypatch.setattr(target, "_check_stage", fails)
    assert convert(tiny_onnx, tmp_path / "b", "--to", "ncnn,onnx", "--fp32", "--no-verify") == 3
    bundle = read_bundle(tmp_path / "b")
    assert [a.target for a in bundle.artifacts] == ["onnx"]
    (entry,) = bundle.skipped
    assert entry.refused
    assert "KeyError: 'y1' (test_skipped_targets.py:" in entry.reason
    assert "defect of the target" in entry.reason


def test_what_is_refused_in_floats_is_not_calibrated(
    flip_onnx: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--to", "ncnn,tflite", "--fp32", "--int8", "--calibrate", str(images)]
    words = ["convert", str(flip_onnx), "--out", str(tmp_path / "b"), *arguments]
    assert main(words) == 3
    assert "calibrated" not in capsys.readouterr().err


def test_json_is_printed_where_all_is_refused(
    flip_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(flip_onnx, tmp_path / "b", "--to", "tflite", "--fp32", "--json") == 3
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["exit_code"]) == ("deploykit.error/1", 3)
    assert document["error"]["ops"][0]["op_type"] == "Slice"
    with pytest.raises(SystemExit):
        convert(flip_onnx, tmp_path / "b", "--no-such-option", "--json")
    assert json.loads(capsys.readouterr().out)["exit_code"] == 2


def test_int8_of_a_model_without_layers_for_it_is_left_out_by_name(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save_transposed(tmp_path / "up.onnx")
    arguments = ("--to", "ncnn,onnx", "--fp32", "--int8", "--calibrate", images, "--no-verify")
    assert convert(path, tmp_path / "b", *arguments) == 3
    bundle = read_bundle(tmp_path / "b")
    assert [(a.target, a.precision) for a in bundle.artifacts] == [
        ("ncnn", "fp32"),
        ("onnx", "fp32"),
    ]
    assert [(o.target, o.precision) for o in bundle.skipped] == [
        ("ncnn", "int8"),
        ("onnx", "int8"),
    ]
    assert "no layer of it runs in integers" in capsys.readouterr().out


def test_a_quantized_stage_that_does_not_run_costs_its_file_alone(
    tiny_onnx: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deploykit.errors import RunnerError
    from deploykit.flow import prove

    real = prove.run_stage

    def fails(stage: Model, *arguments: Any, **settings: Any) -> Any:
        if stage.stage is Stage.QUANTIZED:
            raise RunnerError("Type Error: tensor(uint8) of input")
        return real(stage, *arguments, **settings)

    monkeypatch.setattr(prove, "run_stage", fails)
    arguments = ("--to", "onnx", "--fp32", "--int8", "--calibrate", images)
    assert convert(tiny_onnx, tmp_path / "b", *arguments) == 3
    bundle = read_bundle(tmp_path / "b")
    assert [a.precision for a in bundle.artifacts] == ["fp32"]
    (refusal,) = bundle.skipped
    assert (refusal.target, refusal.precision, refusal.refused) == ("onnx", "int8", True)
    assert "does not run the stage" in refusal.reason
    assert "tensor(uint8)" in refusal.reason
    assert main(["verify", str(tmp_path / "b")]) == 0


def save_computed_weight(path: Path) -> Path:
    """A convolution whose weights the network computes."""
    shapes = {"x": (1, 3, 8, 8), "y": (1, 4, 8, 8)}
    described = {
        name: helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    }
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node("Mul", ["p", "w"], ["k"]),
        helper.make_node("Conv", ["x", "k"], ["y"], "dynamic"),
    ]
    rng = np.random.default_rng(0)
    weights = numpy_helper.from_array(rng.normal(size=(4, 3, 1, 1)).astype(np.float32), "w")
    graph = helper.make_graph(nodes, "g", [described["x"]], [described["y"]], [weights])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def test_a_convolution_of_computed_weights_costs_no_other_targets_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save_computed_weight(tmp_path / "dynamic.onnx")
    assert convert(path, tmp_path / "b", "--to", "tflite,ncnn,onnx", "--fp32") == 3
    text = capsys.readouterr().out
    bundle = read_bundle(tmp_path / "b")
    assert "onnx" in {a.target for a in bundle.artifacts}
    assert all(v.passed for a in bundle.artifacts for v in a.verdicts)
    for entry in bundle.skipped:
        assert "defect" not in entry.reason, entry.reason
        assert "Conv" in entry.reason
    assert "'dynamic'" in text
