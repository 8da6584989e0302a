"""Files on the oldest runtimes that pip serves and that read them.

Three environments of 80 to 270 MB: they are the user's own (`deploykit doctor --setup NAME`), or
are made for the tests where DEPLOYKIT_MAKE_OLD is set (10-75 s each).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.bundle import read_bundle
from deploykit.cli import main
from deploykit.errors import UserError
from deploykit.runners.environments import FOLDER_VARIABLE, make_environment, why_not_made
from deploykit.runners.registry import find_runner

ROOT = Path(__file__).resolve().parent.parent
RUNNERS = {
    "litert-old": ("tflite", "LiteRT", "1.0.1"),
    "ncnn-old": ("ncnn", "ncnn", "1.0.20221128"),
    "onnxruntime-old": ("onnx", "ONNX Runtime", "1.18.0"),
}


@pytest.fixture(scope="module", params=sorted(RUNNERS))
def runner(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    name = str(request.param)
    environment = find_runner(name).environment
    assert environment is not None
    with pytest.MonkeyPatch.context() as patch:
        if reason := why_not_made(environment):
            if not os.environ.get("DEPLOYKIT_MAKE_OLD"):
                pytest.skip(f"{name}: {reason}, or set DEPLOYKIT_MAKE_OLD")
            patch.setenv(FOLDER_VARIABLE, str(tmp_path_factory.mktemp("environments")))
            try:
                make_environment(environment)
            except UserError as error:
                pytest.skip(f"no environment for {name}: {error}")
        yield name


def test_a_family_agrees_in_fp32_and_int8(runner: str, tmp_path: Path) -> None:
    target, runtime, version = RUNNERS[runner]
    source = str(ROOT / "examples" / "checkpoints" / "mobilenet_v3_small.pt")
    flags = ["--to", target, "--fp32", "--int8", "--samples", "4", "--runner", runner]
    assert main(["convert", source, *flags, "--quiet", "--out", str(tmp_path / "b")]) == 0
    verdicts = [v for a in read_bundle(tmp_path / "b").artifacts for v in a.verdicts]
    assert [v.precision for v in verdicts] == ["fp32", "int8"]
    for verdict in verdicts:
        assert verdict.passed
        assert verdict.runner is not None
        assert (verdict.runner.runtime, verdict.runner.version) == (runtime, version)
    assert any(c.metric.startswith("layer_error") for c in verdicts[1].checks)
