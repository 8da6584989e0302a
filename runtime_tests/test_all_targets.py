"""Every family on every target: the page has each as it is now, and two are converted again."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest

from deploykit.bundle import Bundle, read_bundle
from deploykit.cli import main
from deploykit.runners.registry import available_runners
from deploykit.target import available_targets, find_target

ROOT = Path(__file__).resolve().parent.parent
PRECISIONS = ("fp32", "int8")
#: Converted again here: channel shuffles, and squeeze-and-excite with h-swish.
AGAIN = ("shufflenet_v2", "mobilenet_v3_small")
#: What two builds of one converter may differ by, or the page is of another one. Noise of int8 is
#: the quantizer's; noise of floats is each CPU's own rounding.
SAME_BYTES, SAME_SNR_DB = 0.02, {"int8": 3.0, "fp32": 12.0}


@dataclass(frozen=True)
class Row:
    """One line of the page, without the checkpoint's hash."""

    family: str
    target: str
    precision: str
    runner: str
    bytes: int
    error: str
    snr_db: float
    verdict: str


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = ROOT / "docs" / "make_families.py"
    spec = importlib.util.spec_from_file_location("make_families", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows(script: ModuleType) -> list[Row]:
    """Of every file on every runner, as the page has them; references left out."""
    found = []
    for lines in script.PAGES[1].committed_rows().values():
        for line in lines:
            family, _, target, precision, runner, size, error, snr, _, verdict = (
                cell.strip() for cell in line.split("|")[1:-1]
            )
            if target != "reference":
                decibels = float(snr.removesuffix(" dB"))
                size_bytes = int(size.replace(",", ""))
                found.append(
                    Row(family, target, precision, runner, size_bytes, error, decibels, verdict)
                )
    return found


def test_the_page_has_each_file_as_it_is_now(script: ModuleType) -> None:
    page = script.PAGES[1]
    assert list(page.committed_rows()) == script.current_keys(), "run python docs/make_families.py"


def test_every_family_is_on_every_target_in_float_and_int8(
    script: ModuleType, rows: list[Row]
) -> None:
    for family, _ in script.current_keys():
        for target in available_targets():
            always = {
                r.name
                for r in find_target(target).runners
                if not (r.probe or r.on_request or r.suffix or r.environment or r.limits)
            }
            for precision in PRECISIONS:
                key = (family, target, precision)
                asked = {r.runner for r in rows if (r.family, r.target, r.precision) == key}
                assert asked >= always, key


def test_every_verdict_on_the_page_is_a_pass(rows: list[Row]) -> None:
    assert rows
    assert [row for row in rows if row.verdict != "pass"] == []


@pytest.fixture(scope="module", params=AGAIN)
def converted(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Bundle]:
    checkpoint = ROOT / "examples" / "checkpoints" / f"{request.param}.pt"
    folder = tmp_path_factory.mktemp("all_targets") / request.param
    flags = [f"--{precision}" for precision in PRECISIONS]
    words = ["convert", str(checkpoint), "--to", "all", *flags, "--out", str(folder), "--quiet"]
    words += ["--method", "minmax"]  # as the page has them
    assert main(words) == 0
    return request.param, read_bundle(folder)


def test_a_family_that_is_converted_again_has_the_rows_of_the_page(
    converted: tuple[str, Bundle], rows: list[Row], script: ModuleType
) -> None:
    family, bundle = converted
    here = {r.name for name in available_targets()
            for r in available_runners(find_target(name).runners)}  # fmt: skip
    expected = {(r.target, r.precision, r.runner): r for r in rows
                if r.family == family and r.runner in here}  # fmt: skip
    verdicts = {(v.target, v.precision, v.runner_name): v
                for a in bundle.artifacts for v in a.verdicts}  # fmt: skip
    assert expected
    assert set(expected) <= set(verdicts)
    for key, row in expected.items():
        verdict = verdicts[key]
        assert verdict.outcome == row.verdict, key
        assert verdict.bytes == pytest.approx(row.bytes, rel=SAME_BYTES), key
        snr = float(script.format_least(verdict, "snr_db", script.as_decibels))
        assert snr == pytest.approx(row.snr_db, abs=SAME_SNR_DB[row.precision]), key


def test_one_calibration_serves_every_target(converted: tuple[str, Bundle]) -> None:
    _, bundle = converted
    assert bundle.calibration is not None
    assert bundle.calibration["samples"] == 128
    assert bundle.skipped == ()
    int8 = [a for a in bundle.artifacts if a.precision == "int8"]
    assert {a.target for a in int8} == set(available_targets())
    assert all(a.verdicts for a in bundle.artifacts)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_names_that_a_format_cannot_have_are_kept_in_the_bundle(
    tmp_path: Path, precision: str
) -> None:
    """Old exporters call an input ``input.1``; a package of Core ML wants identifiers."""
    weights = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["input.1", "weight"], ["12"])],
        "net",
        [onnx.helper.make_tensor_value_info("input.1", onnx.TensorProto.FLOAT, [1, 3, 8, 8])],
        [onnx.helper.make_tensor_value_info("12", onnx.TensorProto.FLOAT, [1, 4, 6, 6])],
        [onnx.numpy_helper.from_array(weights, "weight")],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    source, tensors, out = tmp_path / "net.onnx", tmp_path / "x.npy", tmp_path / "b"
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset), source)
    noise = np.random.default_rng(1).standard_normal((8, 3, 8, 8))
    np.save(tensors, noise.cumsum(2).cumsum(3).astype(np.float32))
    arguments = ["convert", str(source), "--to", "all", f"--{precision}", "--out", str(out)]
    assert main([*arguments, "--quiet", "--samples", "2", "--calibrate", str(tensors)]) == 0
    bundle = read_bundle(out)
    assert sorted(a.target for a in bundle.artifacts) == ["coreml", "ncnn", "onnx", "tflite"]
    for artifact in bundle.artifacts:
        assert ([s.name for s in artifact.inputs], [s.name for s in artifact.outputs]) == (
            ["input.1"],
            ["12"],
        )
    assert main(["verify", str(out)]) == 0
