"""Core ML on the committed example: one command, every precision, verified by the executor.

The executor is ours, and not Apple's runtime: what is held here is that the saved package says what
the stage does.
"""

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
FLAGS = ["--fp32", "--fp16", "--w8", "--int8"]


@pytest.fixture(scope="module")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("coreml") / "ghostnet"
    arguments = ["convert", str(CHECKPOINT), "--to", "coreml", *FLAGS, "--out", str(out)]
    assert main([*arguments, "--quiet", "--samples", "8"]) == 0
    return out


def snr_db(found: np.ndarray, wanted: np.ndarray) -> float:
    noise = np.square(found.astype(np.float64) - wanted).sum()
    return float(10 * np.log10(np.square(wanted.astype(np.float64)).sum() / noise))


def test_every_verdict_passed_and_names_the_executor(bundle_folder: Path) -> None:
    bundle = read_bundle(bundle_folder)
    assert [a.precision for a in bundle.artifacts] == ["fp32", "fp16", "w8", "int8"]
    for artifact in bundle.artifacts:
        (verdict,) = artifact.verdicts
        assert verdict.passed
        assert verdict.runner_name == "coreml-reference"
        assert verdict.runner is not None
        assert verdict.runner.runtime == "reference executor, not Apple's runtime"


@pytest.mark.parametrize(
    ("precision", "least_db"), [("fp32", 110.0), ("fp16", 50.0), ("w8", 40.0), ("int8", 25.0)]
)
def test_signal_to_noise(bundle_folder: Path, precision: str, least_db: float) -> None:
    golden = Golden.from_npz(bundle_folder / GOLDEN)
    ((name, wanted),) = golden.reference.items()
    found = golden.runs[f"ghostnet.{precision}.mlpackage"]["coreml-reference"][name]
    assert snr_db(found, wanted) >= least_db


def test_int8_layers_are_within_two_steps(bundle_folder: Path) -> None:
    (verdict,) = read_bundle(bundle_folder).artifacts[3].verdicts
    worst = next(c for c in verdict.checks if c.metric == "layer_error_lsb")
    assert worst.measured <= 2.0


def test_int8_is_built_of_pairs(bundle_folder: Path) -> None:
    counts = read_bundle(bundle_folder).artifacts[3].summary["op_counts"]
    assert counts["quantize"] == counts["dequantize"] > 100
    assert counts["constexpr_affine_dequantize"] == counts["conv"] + counts["linear"]
    assert "transpose" not in counts


def test_verify_verifies_the_bundle_again(
    bundle_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(bundle_folder)]) == 0
    text = capsys.readouterr().out
    assert "reference executor, not Apple's runtime" in text
    assert "coreml-reference" in text


def test_verify_on_apples_runtime_says_where_it_runs(
    bundle_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(bundle_folder), "--runner", "coreml"]) == 1
    assert "Core ML runs on macOS" in capsys.readouterr().out


def test_a_changed_weight_file_is_noticed(
    bundle_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(bundle_folder, copy)
    weights = copy / "ghostnet.fp16.mlpackage/Data/com.apple.CoreML/weights/weight.bin"
    weights.write_bytes(weights.read_bytes()[:-2] + b"\0\1")
    assert main(["verify", str(copy)]) == 2
    assert "weight.bin" in capsys.readouterr().err


def test_top1(bundle_folder: Path) -> None:
    table = evaluate(bundle_folder, SAMPLE, source=str(CHECKPOINT), samples=120)
    reference, *rows = table.rows
    by_precision = {r.precision: r for r in rows}
    assert all(r.runner == "coreml-reference" for r in rows)
    for precision in ("fp32", "fp16"):
        assert by_precision[precision].agreement == 1.0
    assert abs(by_precision["w8"].top1 - reference.top1) <= 0.01
    assert abs(by_precision["int8"].top1 - reference.top1) <= 0.02


def test_inspect_takes_the_folder(bundle_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(bundle_folder / "ghostnet.int8.mlpackage")]) == 0
    text = capsys.readouterr().out
    assert "CoreML7 (iOS 17 and later)" in text
    assert "quantize" in text


def test_options_reach_the_package(tmp_path: Path) -> None:
    out = tmp_path / "b"
    options = ["coreml.input=image", "coreml.classifier=yes"]
    arguments = ["convert", str(CHECKPOINT), "--to", "coreml,tflite", "--w8", "--out", str(out)]
    arguments += ["--ios", "18", "--palettize", "6", "--quiet", "--samples", "4"]
    arguments += [word for option in options for word in ("--option", option)]
    assert main(arguments) == 0
    manifest = json.loads((out / "deploykit.json").read_text())
    coreml, tflite = manifest["artifacts"]
    assert coreml["summary"]["opset"] == "CoreML8"
    assert coreml["summary"]["palette_bits"] == 6
    assert coreml["summary"]["image"] == {"name": coreml["inputs"][0]["name"], "color": "RGB"}
    assert coreml["bytes"] < 0.9 * tflite["bytes"]
    assert coreml["path"] == "ghostnet.w8.mlpackage"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--int8", "--calibration-samples", "4", "--ios", "16"],
            "precision int8 with ios 16",
        ),
        (["--fp16", "--option", "coreml.colour=red"], "no option 'colour'"),
        (["--fp16", "--option", "ios=17"], "TARGET.NAME=VALUE"),
        (["--fp16", "--option", "tflite.io=int8"], "which nothing is written for"),
        (["--fp16", "--io", "uint8"], "which nothing is written for"),
        (["--fp16", "--palettize", "4"], "coreml.palettize=4 with fp16"),
        (["--w8", "--palettize", "5"], "palettize is '5'"),
        (["--w8", "--ios", "15"], "precision w8 with ios 15"),
    ],
)
def test_bad_options_write_nothing(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "b"
    command = ["convert", str(CHECKPOINT), "--to", "coreml", "--out", str(out), "--quiet"]
    assert main([*command, *arguments]) == 2
    assert words in capsys.readouterr().err
    assert not out.exists()


def test_options_are_refused_before_the_model_is_even_fused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("the way has begun")

    monkeypatch.setattr("deploykit.passes.pipeline.advance", fail)
    arguments = ["convert", str(CHECKPOINT), "--to", "coreml", "--out", str(tmp_path / "b")]
    assert main([*arguments, "--int8", "--ios", "16"]) == 2


def test_without_a_precision_it_is_float16_or_what_the_options_are_for(tmp_path: Path) -> None:
    made = []
    for name, options in (("plain", []), ("palettes", ["--palettize", "8"])):
        arguments = ["convert", str(CHECKPOINT), "--to", "coreml", "--no-verify", "--quiet"]
        assert main([*arguments, *options, "--out", str(tmp_path / name)]) == 0
        made += [a.precision for a in read_bundle(tmp_path / name).artifacts]
    assert made == ["fp16", "w8"]


def test_two_conversions_are_byte_identical(tmp_path: Path) -> None:
    trees = []
    for name in ("a", "b"):
        out = tmp_path / name
        arguments = [
            "convert",
            str(CHECKPOINT),
            "--to",
            "coreml",
            "--fp16",
            "--int8",
            "--no-verify",
        ]
        arguments += ["--calibration-samples", "4", "--quiet", "--out", str(out)]
        assert main(arguments) == 0
        files = sorted(p for p in out.rglob("*") if p.is_file())
        trees.append({str(p.relative_to(out)): p.read_bytes() for p in files})
    assert trees[0] == trees[1]
    assert "ghostnet.int8.mlpackage/Manifest.json" in trees[0]
