"""The main job on the committed example: one command, a verdict, a bundle that phones can run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from deploykit.bundle import GOLDEN, read_bundle
from deploykit.cli import main
from deploykit.flow.evaluate import evaluate
from deploykit.golden import Golden

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINT = ROOT / "examples" / "ghostnet.pt"
SAMPLE = ROOT / "examples" / "fashion_mnist_sample.npz"


@pytest.fixture(scope="module")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("main") / "ghostnet"
    flags = ["--fp32", "--fp16", "--w8", "--int8"]
    assert main(["convert", str(CHECKPOINT), "--to", "tflite", *flags, "--out", str(out)]) == 0
    return out


def _interpreter(path: Path) -> object:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    return interpreter


def test_every_verdict_passed_on_both_kernel_sets(bundle_folder: Path) -> None:
    bundle = read_bundle(bundle_folder)
    assert [a.precision for a in bundle.artifacts] == ["fp32", "fp16", "w8", "int8"]
    for artifact in bundle.artifacts:
        assert {v.runner_name for v in artifact.verdicts} == {"litert", "litert-reference"}
        assert all(v.passed for v in artifact.verdicts)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_xnnpack_takes_the_whole_graph_in_one_partition(
    bundle_folder: Path, precision: str
) -> None:
    interpreter = _interpreter(bundle_folder / f"ghostnet.{precision}.tflite")
    ops = [d["op_name"] for d in interpreter._get_ops_details()]  # type: ignore[attr-defined]
    assert ops.count("DELEGATE") == 1
    delegate = next(
        d
        for d in interpreter._get_ops_details()
        if d["op_name"] == "DELEGATE"  # type: ignore[attr-defined]
    )
    outputs = {o["index"] for o in interpreter.get_output_details()}  # type: ignore[attr-defined]
    assert outputs <= set(delegate["outputs"])


def test_full_int8_has_no_float_tensor_and_no_transpose(bundle_folder: Path) -> None:
    interpreter = _interpreter(bundle_folder / "ghostnet.int8.tflite")
    dtypes = {d["dtype"] for d in interpreter.get_tensor_details()}  # type: ignore[attr-defined]
    assert dtypes <= {np.int8, np.int32}
    for precision in ("fp32", "int8"):
        details = _interpreter(bundle_folder / f"ghostnet.{precision}.tflite")._get_ops_details()  # type: ignore[attr-defined]
        assert not [d for d in details if d["op_name"] == "TRANSPOSE"]


def test_top1_of_int8_is_within_half_a_point_of_float(bundle_folder: Path) -> None:
    table = evaluate(bundle_folder, SAMPLE, source=str(CHECKPOINT))
    reference, *rows = table.rows
    assert reference.what == "reference"
    assert reference.total == 1000
    assert reference.top1 >= 0.9
    by_precision = {r.precision: r for r in rows}
    assert by_precision["fp32"].correct == reference.correct
    assert abs(by_precision["int8"].top1 - reference.top1) <= 0.005


def test_manifest_is_a_contract_for_an_app(bundle_folder: Path) -> None:
    manifest = json.loads((bundle_folder / "deploykit.json").read_text())
    assert manifest["input"]["shape"] == [1, 3, 64, 64]
    assert manifest["input"]["preprocess"]["size"] == [64, 64]
    assert len(manifest["labels"]) == 10
    int8 = next(a for a in manifest["artifacts"] if a["precision"] == "int8")
    assert int8["inputs"][0]["layout"] == "NHWC"
    assert int8["inputs"][0]["dtype"] == "int8"
    assert int8["inputs"][0]["quantization"]["scale"][0] > 0
    assert int8["bytes"] == (bundle_folder / int8["path"]).stat().st_size


def test_golden_vectors_are_what_the_file_gives(bundle_folder: Path) -> None:
    """An app's view: golden inputs through the file, with nothing of deploykit in between."""
    golden = Golden.from_npz(bundle_folder / GOLDEN)
    interpreter = _interpreter(bundle_folder / "ghostnet.fp32.tflite")
    (name,) = golden.inputs
    (output,) = golden.reference
    source = interpreter.get_input_details()[0]["index"]  # type: ignore[attr-defined]
    result = interpreter.get_output_details()[0]["index"]  # type: ignore[attr-defined]
    for row in range(3):
        interpreter.set_tensor(source, golden.inputs[name][row : row + 1].transpose(0, 2, 3, 1))  # type: ignore[attr-defined]
        interpreter.invoke()  # type: ignore[attr-defined]
        np.testing.assert_allclose(
            interpreter.get_tensor(result)[0],  # type: ignore[attr-defined]
            golden.reference[output][row],
            atol=1e-3,
        )


def test_verify_verifies_the_bundle_again(
    bundle_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(bundle_folder)]) == 0
    assert "PASS" in capsys.readouterr().out


def test_a_tighter_limit_fails_with_exit_code_1(bundle_folder: Path) -> None:
    assert main(["verify", str(bundle_folder), "--limit", "int8.snr_db=200"]) == 1


def test_two_conversions_are_byte_identical(tmp_path: Path) -> None:
    files = []
    for name in ("a", "b"):
        out = tmp_path / name
        arguments = ["convert", str(CHECKPOINT), "--int8", "--out", str(out), "--quiet"]
        assert main([*arguments, "--samples", "2"]) == 0
        files.append({p.name: p.read_bytes() for p in sorted(out.iterdir())})
    assert files[0].keys() == files[1].keys()
    for name in files[0]:
        assert files[0][name] == files[1][name], name
