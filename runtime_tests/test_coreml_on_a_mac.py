"""A bundle that was made on Linux, verified again by the runner ``coreml``: with a stand-in.

No Mac has run this. What is held is the way: the runner is offered, its child process opens the
package with ``MLModel``, gives it the golden inputs one by one, and what comes back is verified.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from deploykit.cli import main
from deploykit.flow.verify import verify

pytest.importorskip("torch")
pytest.importorskip("coremltools")

CHECKPOINT = Path(__file__).parent.parent / "examples" / "checkpoints" / "mobilenet_v1.pt"

#: What a child process imports at its start: the system is a Mac, and MLModel computes with the
#: reference executor (times ``FACTOR``), one sample a call, as Core ML does.
SITE = """
import platform

platform.system = lambda: "Darwin"
platform.mac_ver = lambda: ("15.1", ("", "", ""), "arm64")

import deploykit_coreml.load_coremltools as loading

real = loading.load_coremltools


class StandIn:
    def __init__(self, path, compute_units=None):
        from deploykit_coreml.reference_backend import ReferenceBackend

        self.backend = ReferenceBackend(path, {})

    def predict(self, data):
        assert all(len(array) == 1 for array in data.values())
        found = self.backend.run(data)
        return {name: FACTOR * value for name, value in found.items()}


def load_coremltools():
    coremltools = real()
    coremltools.models.MLModel = StandIn
    return coremltools


loading.load_coremltools = load_coremltools
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("linux") / "b"
    arguments = ["convert", str(CHECKPOINT), "--to", "coreml", "--fp32", "--fp16", "--int8"]
    arguments += ["--samples", "2", "--calibration-samples", "16", "--quiet", "--out", str(out)]
    assert main(arguments) == 0
    return out


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Children start on a Mac; this process takes its word for it."""
    (tmp_path / "sitecustomize.py").write_text(f"FACTOR = 1\n{SITE}")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("deploykit_coreml.apple_backend.platform.system", lambda: "Darwin")
    return tmp_path


@pytest.mark.usefixtures("mac")
def test_apples_runtime_verifies_the_bundle_from_its_golden_vectors(bundle: Path) -> None:
    report = verify(bundle, runners=["coreml"], limits=["int8.max_error_lsb=8"])
    assert [v.precision for v in report.verdicts] == ["fp32", "fp16", "int8"]
    assert report.passed, [
        (v.precision, c) for v in report.verdicts for c in v.checks if not c.passed
    ]
    for verdict in report.verdicts:
        assert verdict.runner is not None
        assert (verdict.runner.runtime, verdict.runner.version) == ("Core ML", "15.1")
        assert verdict.runner.kernels == "ALL"


@pytest.mark.usefixtures("mac")
def test_without_a_name_both_runners_verify(bundle: Path) -> None:
    names = [v.runner_name for v in verify(bundle).verdicts]
    assert names == ["coreml", "coreml-reference"] * 3


def test_a_wrong_result_fails(bundle: Path, mac: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (mac / "sitecustomize.py").write_text(f"FACTOR = 1.1\n{SITE}")
    assert main(["verify", str(bundle), "--runner", "coreml"]) == 1
    text = capsys.readouterr().out
    assert "FAIL" in text
    assert "Core ML 15.1" in text


@pytest.mark.skipif(sys.platform == "darwin", reason="it is offered there")
def test_here_it_is_not_offered(bundle: Path) -> None:
    assert {v.runner_name for v in verify(bundle).verdicts} == {"coreml-reference"}
