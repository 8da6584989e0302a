"""Arm's compiler for Ethos-U NPUs: what it leaves to the CPU, refuses, and writes.

Its environment is made as the one of ``tflite-micro`` is (`test_tflite_micro`); 5-10 s, 80 MB.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from deploykit.bundle import read_bundle
from deploykit.cli import main
from deploykit.errors import RunnerError, UserError
from deploykit.runners.base import RunnerSpec
from deploykit.runners.environments import FOLDER_VARIABLE, installed_in, make_environment
from deploykit.runners.process import open_runner
from deploykit.verdict import Verdict
from deploykit_tflite.definition import ETHOS_U
from deploykit_tflite.ethos_u import USUAL

ROOT = Path(__file__).resolve().parent.parent
RUNNER = "ethos-u"
FAMILY = "mobilenet_v3_small"


@pytest.fixture(scope="module", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if not installed_in(ETHOS_U):
            patch.setenv(FOLDER_VARIABLE, str(tmp_path_factory.mktemp("environments")))
            patch.setenv("PIP_TIMEOUT", "10")  # seconds; without a connection, be quick
            patch.setenv("PIP_RETRIES", "1")
            try:
                make_environment(ETHOS_U)
            except UserError as error:
                pytest.skip(f"no environment for ethos-u: {error}")
        yield


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory, environment: None) -> Path:
    out = tmp_path_factory.mktemp("converted") / "b"
    source = str(ROOT / "examples" / "checkpoints" / f"{FAMILY}.pt")
    flags = ["--to", "tflite", "--int8", "--samples", "4", "--option", f"tflite.ethos_u={USUAL[0]}"]
    runners = ["--runner", "litert", "--runner", RUNNER]
    assert main(["convert", source, *flags, *runners, "--quiet", "--out", str(out)]) == 0
    return out


def _verdict(out: Path) -> Verdict:
    verdicts = [v for a in read_bundle(out).artifacts for v in a.verdicts]
    return next(v for v in verdicts if v.runner_name == RUNNER)


def test_a_network_is_taken_whole_with_estimates_of_three_npus(converted: Path) -> None:
    verdict = _verdict(converted)
    assert verdict.outcome == "pass"
    assert [(c.value, c.metric, c.measured) for c in verdict.checks] == [
        (name, "cpu_op_share", 0.0) for name in USUAL
    ]
    assert verdict.runner is not None
    for name in USUAL:
        assert verdict.runner.details[f"{name}.cycles"] > 10_000
        assert verdict.runner.details[f"{name}.sram_kib"] > 1
        assert verdict.runner.details[f"{name}.ops"] > 50


def test_the_compiled_file_is_in_the_bundle_and_verify_repeats_the_verdict(converted: Path) -> None:
    compiled = converted / f"{FAMILY}.int8.{USUAL[0]}.tflite"
    plain = (converted / f"{FAMILY}.int8.tflite").read_bytes()
    assert compiled.read_bytes()[4:8] == b"TFL3"
    assert b"ethos-u" in compiled.read_bytes()
    assert b"ethos-u" not in plain
    (artifact,) = read_bundle(converted).artifacts
    assert compiled.name in [f.path for f in artifact.files]
    assert main(["verify", str(converted), "--runner", RUNNER]) == 0


def test_operators_left_to_the_cpu_warn_and_fail(tmp_path: Path) -> None:
    """Sqrt is computed in floats inside of an int8 file; no NPU takes floats."""
    weights = np.random.default_rng(0).normal(0, 0.2, (8, 8, 3, 3)).astype(np.float32)
    text = """
        <ir_version: 9, opset_import: ["" : 20]>
        g (float[1,8,8,8] x, float[8,8,3,3] w) => (float[1,8,8,8] y) {
            a = Conv<pads = [1, 1, 1, 1]>(x, w)
            b = Relu(a)
            c = Sqrt(b)
            y = Conv<pads = [1, 1, 1, 1]>(c, w)
        }"""
    model = ir.from_onnx_text(text)
    value = model.graph.inputs.pop(1)
    value.const_value = ir.tensor(weights, name="w")
    model.graph.register_initializer(value)
    path = tmp_path / "sqrt.onnx"
    ir.save(model, path)
    command = ["convert", str(path), "--to", "tflite", "--int8", "--samples", "2", "--quiet"]
    # Neighbours are alike, as in images: noise is refused.
    noise = np.random.default_rng(1).normal(0, 1, (16, 8, 8, 8))
    smooth = np.cumsum(np.cumsum(noise, axis=2), axis=3) / 4
    np.save(tmp_path / "samples.npy", smooth.astype(np.float32))
    command += ["--runner", RUNNER, "--calibrate", str(tmp_path / "samples.npy")]
    assert main([*command, "--out", str(tmp_path / "fails")]) == 1
    verdict = _verdict(tmp_path / "fails")
    assert verdict.outcome == "fail"
    assert all(0.1 < c.measured < 1 for c in verdict.checks)
    assert verdict.runner is not None
    assert "Float32" in verdict.runner.details["left_to_cpu"]
    limit = ["--limit", "int8.cpu_op_share=0.9"]
    assert main([*command, *limit, "--out", str(tmp_path / "warns")]) == 0
    assert _verdict(tmp_path / "warns").outcome == "warn"


def test_what_is_refused_or_not_a_file_is_an_error(tmp_path: Path, converted: Path) -> None:
    whole = (converted / f"{FAMILY}.int8.tflite").read_bytes()
    damaged = tmp_path / "damaged.tflite"
    damaged.write_bytes(whole[:3000])
    with pytest.raises(RunnerError, match=r"runner 'ethos-u' (failed|crashed)"):
        open_runner(RunnerSpec(RUNNER, str(damaged)))
    options = {"accelerators": ["ethos-u99-1"]}
    with pytest.raises(RunnerError, match=r"accelerator 'ethos-u99-1'\n.*one of ethos-u55-32"):
        open_runner(RunnerSpec(RUNNER, str(damaged), options))


def test_without_the_compiler_the_option_is_refused_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "none"))
    source = str(ROOT / "examples" / "checkpoints" / f"{FAMILY}.pt")
    command = ["convert", source, "--to", "tflite", "--int8", "--out", str(tmp_path / "b")]
    assert main([*command, "--option", "tflite.ethos_u=ethos-u85-256"]) == 2
    assert "deploykit doctor --setup ethos-u" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()
