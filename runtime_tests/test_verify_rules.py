"""`verify` passes what is right on any machine, and fails planted faults under each of its rules.

Repeated: the same runtime, version and CPU must give what it gave. Layers: another CPU, and the
bundle keeps its stages. Outputs: another CPU, and it does not.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed (extra [tflite])")

import deploykit
from deploykit.bundle import MANIFEST
from deploykit.cli import main
from deploykit.files import sha256_of
from deploykit.flow.convert import convert
from deploykit.flow.plan import ConvertRequest
from deploykit.flow.verify import verify
from deploykit.model import Model, Precision, SourceInfo, Stage
from deploykit.target import ArtifactRequest
from deploykit_tflite import TARGET

BUNDLES = Path(__file__).resolve().parent.parent / "tests" / "bundles"
RUNNER = "litert-reference"
FILE = "tiny.int8.tflite"
STAGE = "stages/tflite.int8.onnx"
_GRAPH = """<ir_version: 10, opset_import: ["" : 18]>
g (float[1,3,12,12] image) => (float[1,5] scores) {
 a = Conv<kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]>(image, W0, B0) b = Relu(a)
 c = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=8>(b, W1, B1) d = Relu(c)
 e = Conv<kernel_shape=[1,1]>(d, W2, B2) f = Relu(e)
 p = GlobalAveragePool(f) q = Flatten(p) scores = Gemm<transB=1>(q, W3, B3) }"""
_SHAPES = {"W0": (8, 3, 3, 3), "W1": (8, 1, 3, 3), "W2": (8, 8, 1, 1), "W3": (5, 8)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a small network in int8, with its stages."""
    folder = tmp_path_factory.mktemp("rules")
    random = np.random.default_rng(7)
    proto = onnx.parser.parse_model(_GRAPH)
    for index, (name, shape) in enumerate(_SHAPES.items()):
        weights = random.standard_normal(shape) * (2 / np.prod(shape[1:])) ** 0.5
        bias = random.standard_normal(shape[0]) / 4
        for called, array in ((name, weights), (f"B{index}", bias)):
            tensor = numpy_helper.from_array(array.astype(np.float32), called)
            proto.graph.initializer.append(tensor)
    onnx.save(proto, folder / "tiny.onnx")
    images = random.standard_normal((32, 3, 12, 12)).astype(np.float32)
    images = np.cumsum(images, axis=-1) / 3  # neighbours are alike, as in photos
    np.savez(folder / "data.npz", image=images)
    request = ConvertRequest(
        precisions=("int8",),
        out=folder / "bundle",
        calibration=folder / "data.npz",
        keep_stages=True,
        runners=(RUNNER,),
    )
    assert convert(deploykit.load(folder / "tiny.onnx"), request).report.passed
    return folder / "bundle"


def another_cpu(folder: Path) -> None:
    """As if the bundle came from a machine of another kind."""
    change_manifest(folder, lambda m: m["artifacts"][0]["verdicts"][0]["runner"].update(cpu="r5"))


def without_stages(folder: Path) -> None:
    another_cpu(folder)
    change_manifest(folder, lambda m: m.update(stages={}))


def change_manifest(folder: Path, change: Callable[[dict], object]) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


RULES = {"repeated": lambda _: None, "layers": another_cpu, "outputs": without_stages}
METRICS = {
    "repeated": "repeat_error_lsb",
    "layers": "layer_error_lsb",
    "outputs": "snr_loss_db",
}


def wrong_pad(proto: onnx.ModelProto) -> None:
    node = next(n for n in proto.graph.node if n.op_type == "Conv")
    pads = next(a for a in node.attribute if a.name == "pads")
    pads.ints[:] = [0, 0, 2, 2]


def permuted_channel(proto: onnx.ModelProto) -> None:
    change_weights(proto, "W2", lambda w: w[[1, 0, *range(2, len(w))]])


def wrong_scale(proto: onnx.ModelProto) -> None:
    node = weights_node(proto, "W3")
    scale = next(i for i in proto.graph.initializer if i.name == node.input[1])
    array = numpy_helper.to_array(scale).copy()
    array[np.argmax(array)] *= 1.1
    scale.CopyFrom(numpy_helper.from_array(array, scale.name))


def weights_node(proto: onnx.ModelProto, name: str) -> onnx.NodeProto:
    """The DequantizeLinear of a layer's weights."""
    return next(
        n
        for n in proto.graph.node
        if n.op_type == "DequantizeLinear" and n.input[0].startswith(name)
    )


def change_weights(
    proto: onnx.ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    wanted = weights_node(proto, name).input[0]
    tensor = next(i for i in proto.graph.initializer if i.name == wanted)
    array = np.ascontiguousarray(change(numpy_helper.to_array(tensor)))
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


FAULTS = [wrong_pad, permuted_channel, wrong_scale]


def plant(folder: Path, fault: Callable[[onnx.ModelProto], None]) -> None:
    """Put a faulty artefact into a bundle, with its hash."""
    proto = onnx.load(folder / STAGE)
    fault(proto)
    stage = Model(ir.from_proto(proto), Stage.QUANTIZED, "tiny", SourceInfo("onnx"))
    data = TARGET.write(stage, ArtifactRequest(Precision.INT8)).data
    assert data != (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(data)
    digest = sha256_of(folder / FILE)
    change_manifest(
        folder,
        lambda m: m["artifacts"][0]["files"][0].update(sha256=digest, bytes=len(data)),
    )


@pytest.mark.parametrize("rule", RULES)
def test_a_right_file_passes_by_each_rule(rule: str, made: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(made, tmp_path / "b")
    RULES[rule](folder)
    report = verify(folder, runners=(RUNNER,))
    (verdict,) = report.verdicts
    assert report.passed, verdict
    limited = {c.metric for c in verdict.checks if c.limit is not None}
    assert limited & set(METRICS.values()) == {METRICS[rule]}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("rule", RULES)
def test_a_planted_fault_fails_by_each_rule(
    rule: str, fault: Callable[[onnx.ModelProto], None], made: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(made, tmp_path / "b")
    plant(folder, fault)
    RULES[rule](folder)
    report = verify(folder, runners=(RUNNER,))
    (verdict,) = report.verdicts
    assert not report.passed
    assert METRICS[rule] in {c.metric for c in verdict.checks if not c.passed}, verdict.checks


def test_a_bundle_that_failed_when_it_was_made_does_not_pass(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(made, tmp_path / "b")
    change_manifest(
        folder, lambda m: m["artifacts"][0]["verdicts"][0]["checks"][0].update(limit=-1.0)
    )
    assert main(["verify", str(folder), "--runner", RUNNER]) == 1
    out = capsys.readouterr().out
    assert "FAIL: tiny.int8.tflite on litert-reference when the bundle was made: " in out


def test_a_damaged_stage_is_named(made: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(made, tmp_path / "b")
    (folder / STAGE).write_bytes(b"x")
    assert main(["verify", str(folder)]) == 2


@pytest.mark.parametrize("version", [1, 2])
def test_bundles_of_every_version_are_read_and_verified(version: int) -> None:
    folder = BUNDLES / f"version_{version}"
    assert json.loads((folder / MANIFEST).read_text())["schema"] == f"deploykit.bundle/{version}"
    report = verify(folder, runners=("litert", RUNNER))
    assert report.passed, report
    assert len(report.verdicts) == 4


def test_a_warning_ends_with_0_unless_it_is_asked_to_fail(
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = str(BUNDLES / "version_2")
    words = ["verify", folder, "--runner", RUNNER, "--limit", "int8.warn_snr_db=190"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "WARN tflite int8 on litert-reference" in out
    assert main([*words, "--fail-on", "warning"]) == 1
    assert main(["verify", folder, "--runner", RUNNER, "--fail-on", "warning"]) == 0
