"""ncnn on the committed examples: one command, every precision, both runners, accuracy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ncnn", reason="ncnn is not installed (extra [ncnn])")

from deploykit.bundle import GOLDEN, read_bundle
from deploykit.cli import main
from deploykit.flow.evaluate import evaluate
from deploykit.golden import Golden
from deploykit.verdict import Verdict
from deploykit_ncnn.backends import why_no_vulkan

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINT = ROOT / "examples" / "ghostnet.pt"
FAMILIES = sorted((ROOT / "examples" / "checkpoints").glob("*.pt"))
SAMPLE = ROOT / "examples" / "fashion_mnist_sample.npz"
PRECISIONS = ["fp32", "fp16", "int8"]
FLAGS = [f"--{precision}" for precision in PRECISIONS]


@pytest.fixture(scope="module")
def no_vulkan() -> str:
    return why_no_vulkan()


@pytest.fixture(scope="module")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ncnn") / "ghostnet"
    arguments = ["convert", str(CHECKPOINT), "--to", "ncnn", *FLAGS, "--out", str(out)]
    assert main([*arguments, "--quiet", "--samples", "8"]) == 0
    return out


def snr_db(found: np.ndarray, wanted: np.ndarray) -> float:
    noise = np.square(found.astype(np.float64) - wanted).sum()
    return float(10 * np.log10(np.square(wanted.astype(np.float64)).sum() / noise))


def told(verdict: Verdict) -> dict[str, float]:
    return {f"{c.question.value}.{c.metric}": c.measured for c in verdict.checks}


def test_every_verdict_passed_and_names_the_options(bundle_folder: Path, no_vulkan: str) -> None:
    bundle = read_bundle(bundle_folder)
    assert [a.precision for a in bundle.artifacts] == PRECISIONS
    runners = {"ncnn", "ncnn-default"} | (set() if no_vulkan else {"ncnn-vulkan"})
    for artifact in bundle.artifacts:
        assert {v.runner_name for v in artifact.verdicts} == runners
        for verdict in artifact.verdicts:
            assert verdict.passed
            assert verdict.runner is not None
            own_options = verdict.runner_name == "ncnn-default"
            assert verdict.runner.details["fp16_arithmetic"] is own_options
            assert {"fp16_storage", "bf16_storage", "packing", "light_mode"} <= set(
                verdict.runner.details
            )


def test_the_bundle_holds_both_files_of_each(bundle_folder: Path) -> None:
    for artifact in read_bundle(bundle_folder).artifacts:
        names = [f.path for f in artifact.files]
        stem = f"ghostnet.{artifact.precision}"
        assert artifact.path == f"{stem}.param"
        assert sorted(names) == [f"{stem}.bin", f"{stem}.param"]
        assert all((bundle_folder / name).stat().st_size for name in names)
    (spec,) = read_bundle(bundle_folder).artifacts[0].inputs
    assert (spec.layout, spec.shape, spec.runtime_name) == ("CHW", (3, 64, 64), "in0")


@pytest.mark.parametrize(("precision", "least_db"), [("fp32", 110.0), ("fp16", 50.0), ("int8", 20)])
def test_signal_to_noise(bundle_folder: Path, precision: str, least_db: float) -> None:
    golden = Golden.from_npz(bundle_folder / GOLDEN)
    ((name, wanted),) = golden.reference.items()
    for found in golden.runs[f"ghostnet.{precision}.param"].values():
        assert snr_db(found[name], wanted) >= least_db


def test_float_conversion_error(bundle_folder: Path) -> None:
    for verdict in read_bundle(bundle_folder).artifacts[0].verdicts:
        assert told(verdict)["conversion error.max_error_over_range"] <= 2e-6


def test_int8_layers(bundle_folder: Path) -> None:
    artifact = read_bundle(bundle_folder).artifacts[2]
    assert artifact.summary["int8_layers"] == 96 - 41
    # A depthwise convolution in floats stands between any two in integers.
    assert artifact.summary["requantized"] == 0
    for verdict in artifact.verdicts:
        figures = told(verdict)
        # No layer hands on integers, so none has steps.
        assert figures["conversion error.layer_error_over_range"] <= 2e-2


def test_sizes(bundle_folder: Path) -> None:
    fp32, fp16, int8 = (a.bytes for a in read_bundle(bundle_folder).artifacts)
    assert fp16 < 0.52 * fp32
    assert int8 < 0.29 * fp32


def test_verify_verifies_the_bundle_again(
    bundle_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(bundle_folder), "--runner", "ncnn"]) == 0
    assert "float32 arithmetic" in capsys.readouterr().out


def test_ncnns_own_options_have_limits_of_their_own(
    bundle_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for artifact in read_bundle(bundle_folder).artifacts[:2]:
        (verdict,) = [v for v in artifact.verdicts if v.runner_name == "ncnn-default"]
        limits = {f"{c.question.value}.{c.metric}": c.limit for c in verdict.checks}
        assert limits["conversion error.max_error_over_range"] == 2e-2
        assert limits["quantization noise.snr_db"] == 40.0
    arguments = ["verify", str(bundle_folder), "--runner", "ncnn-default"]
    code = main(arguments)
    text = capsys.readouterr().out
    assert code == 0, text
    assert "default arithmetic" in text
    assert "fp16_arithmetic True" in text
    # What the user says comes after them.
    assert main([*arguments, "--limit", "fp16.max_error_over_range=1e-9"]) == 1


def test_a_changed_bin_file_is_noticed(
    bundle_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle_folder, copy)
    weights = copy / "ghostnet.fp16.bin"
    weights.write_bytes(weights.read_bytes()[:-2] + b"\0\1")
    assert main(["verify", str(copy)]) == 2
    assert "ghostnet.fp16.bin" in capsys.readouterr().err


def test_top1(bundle_folder: Path) -> None:
    table = evaluate(bundle_folder, SAMPLE, source=str(CHECKPOINT), samples=500)
    reference, *rows = table.rows
    by_precision = {r.precision: r for r in rows}
    assert all(r.runner == "ncnn" for r in rows)
    for precision in ("fp32", "fp16"):
        assert by_precision[precision].agreement == pytest.approx(1.0, abs=0.003)
    assert abs(by_precision["int8"].top1 - reference.top1) <= 0.02


def test_inspect(bundle_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(bundle_folder / "ghostnet.int8.param")]) == 0
    text = capsys.readouterr().out
    assert "weights: 41 float32, 55 int8" in text
    assert "reads int8 in steps of" in text


def test_two_conversions_are_byte_identical(tmp_path: Path) -> None:
    trees = []
    for name in ("a", "b"):
        out = tmp_path / name
        arguments = ["convert", str(CHECKPOINT), "--to", "ncnn", *FLAGS, "--no-verify"]
        arguments += ["--calibration-samples", "4", "--quiet", "--out", str(out)]
        assert main(arguments) == 0
        trees.append({p.name: p.read_bytes() for p in sorted(out.iterdir())})
    assert trees[0] == trees[1]
    assert "ghostnet.int8.bin" in trees[0]


def test_one_command_one_calibration_two_targets(tmp_path: Path) -> None:
    out = tmp_path / "b"
    arguments = ["convert", str(CHECKPOINT), "--to", "ncnn,tflite", "--int8", "--out", str(out)]
    arguments += ["--quiet", "--samples", "4", "--option", "ncnn.requantize=no"]
    arguments += ["--option", "ncnn.depthwise=int8"]
    assert main([*arguments, "--runner", "ncnn", "--runner", "litert"]) == 0
    manifest = json.loads((out / "deploykit.json").read_text())
    ncnn, tflite = manifest["artifacts"]
    assert (ncnn["target"], tflite["target"]) == ("ncnn", "tflite")
    assert ncnn["summary"]["requantized"] == 0
    assert ncnn["summary"]["int8_layers"] == 96
    assert (out / "calibration.json").exists()


@pytest.mark.parametrize("checkpoint", FAMILIES, ids=lambda path: path.stem)
def test_every_trained_family(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "b"
    arguments = ["convert", str(checkpoint), "--to", "ncnn", "--fp32", "--int8", "--out", str(out)]
    assert main([*arguments, "--quiet", "--samples", "8", "--runner", "ncnn"]) == 0
    for artifact in read_bundle(out).artifacts:
        (verdict,) = artifact.verdicts
        assert verdict.passed, artifact.precision
    reference, *rows = evaluate(out, SAMPLE, source=str(checkpoint), samples=300).rows
    top1 = {row.precision: row.top1 for row in rows}
    assert abs(top1["fp32"] - reference.top1) <= 0.004
    assert top1["int8"] >= reference.top1 - 0.02
