"""ARM64 kernels, emulated: ncnn's wrong kernel is avoided, and int8 files are right there too.

The environment is the user's own (`deploykit doctor --setup arm64`), or is made for the tests
where DEPLOYKIT_MAKE_ARM64 is set (CI; 15-75 s, 240 MB).
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ncnn", reason="ncnn is not installed (extra [ncnn])")

from deploykit.bundle import GOLDEN, read_bundle
from deploykit.cli import main
from deploykit.errors import UserError
from deploykit.golden import Golden
from deploykit.runners.arm64 import ARM64, is_native
from deploykit.runners.environments import FOLDER_VARIABLE, make_environment, why_not_made

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINTS = ROOT / "examples" / "checkpoints"
#: Each has 3x3 depthwise layers of stride 2 whose outputs are 2 or 3 wider than a multiple of 4.
AFFECTED = ["mobilenet_v2", "mobilenet_v1", "shufflenet_v2"]


@pytest.fixture(scope="module", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> None:
    if is_native():
        pytest.skip("this is an ARM64 machine: nothing is emulated")
    if not (reason := why_not_made(ARM64)):
        return
    if not os.environ.get("DEPLOYKIT_MAKE_ARM64"):
        pytest.skip(f"ARM64: {reason}, or set DEPLOYKIT_MAKE_ARM64")
    os.environ.setdefault(FOLDER_VARIABLE, str(tmp_path_factory.mktemp("environments")))
    try:
        make_environment(ARM64)
    except UserError as error:
        pytest.skip(f"ARM64 cannot be emulated here: {error}")


def convert(checkpoint: str, out: Path, *arguments: str) -> int:
    path = CHECKPOINTS / f"{checkpoint}.pt"
    given = ["convert", str(path), "--out", str(out), "--quiet", "--samples", "4", *arguments]
    return main(given)


def snr_db(folder: Path, file: str, runner: str) -> float:
    """Of an artefact on a runner, to the float reference."""
    golden = Golden.from_npz(folder / GOLDEN)
    ((name, found),) = golden.runs[file][runner].items()
    wanted = golden.reference[name][: len(found)].astype(np.float64)
    return float(10 * np.log10(np.square(wanted).sum() / np.square(found - wanted).sum()))


@pytest.mark.parametrize("family", AFFECTED)
def test_ncnn_files_are_right_on_cores_with_float16_arithmetic(family: str, tmp_path: Path) -> None:
    runner = "ncnn-default-arm64@a76"
    chosen = ["--to", "ncnn", "--fp32", "--runner", runner]
    assert convert(family, tmp_path / "with", *chosen) == 0
    assert snr_db(tmp_path / "with", f"{family}.fp32.param", runner) >= 46.0
    # Without the work-around the verdict is what a phone would give.
    option = ["--option", "ncnn.fp16_workaround=no"]
    assert convert(family, tmp_path / "without", *chosen, *option) == 1
    assert snr_db(tmp_path / "without", f"{family}.fp32.param", runner) <= 34.0


def test_int8_on_every_arm64_runner_and_two_cpus(tmp_path: Path) -> None:
    out = tmp_path / "b"
    runners = [
        word
        for name in ("litert", "litert-reference", "ncnn", "ncnn-default", "onnxruntime")
        for word in ("--runner", f"{name}-arm64")
    ]
    targets = ["--to", "tflite,ncnn,onnx", "--int8"]
    assert convert("ghostnet", out, *targets, *runners, "--cpu", "a53,a76") == 0
    verdicts = [v for a in read_bundle(out).artifacts for v in a.verdicts]
    assert len(verdicts) == 10
    for verdict in verdicts:
        assert verdict.runner is not None
        assert verdict.runner.cpu.startswith("aarch64 asimd")
        assert ("fphp" in verdict.runner.cpu) is verdict.runner_name.endswith("@a76")
        assert verdict.samples == 4
