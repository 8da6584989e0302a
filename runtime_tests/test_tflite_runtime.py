"""The trained families on tflite-runtime 2.14, the oldest runtime that phones in the field have.

Its environment is made by ``deploykit doctor --setup tflite-runtime`` in a folder of the tests,
unless the user has made it already. Where it cannot be made (no connection to a package index, no
wheel for this machine), the tests are skipped with pip's own words.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploykit.bundle import read_bundle
from deploykit.cli import main
from deploykit.errors import RunnerError, UserError
from deploykit.runners.base import RunnerSpec
from deploykit.runners.environments import FOLDER_VARIABLE, installed_in, make_environment
from deploykit.runners.process import open_runner
from deploykit.runners.registry import why_unavailable
from deploykit_tflite import TARGET, write_flatbuffer
from deploykit_tflite.definition import TFLITE_RUNTIME
from deploykit_tflite.tflite_graph import TfliteGraph

ROOT = Path(__file__).resolve().parent.parent
RUNNER = "tflite-runtime"
# Between them: residuals, hard-swish and squeeze-and-excite, shuffles in split and concat.
FAMILIES = {
    "mobilenet_v3_small": ("fp32", "fp16", "w8", "int8"),
    "shufflenet_v2": ("w8", "int8"),
}


@pytest.fixture(scope="module", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if not installed_in(TFLITE_RUNTIME):
            patch.setenv(FOLDER_VARIABLE, str(tmp_path_factory.mktemp("environments")))
            patch.setenv("PIP_TIMEOUT", "10")  # seconds; without a connection, be quick
            patch.setenv("PIP_RETRIES", "1")
            try:
                make_environment(TFLITE_RUNTIME)
            except UserError as error:
                pytest.skip(f"no environment for tflite-runtime: {error}")
        yield


def test_it_is_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    packages = installed_in(TFLITE_RUNTIME)
    assert packages["tflite-runtime"] == "2.14.0"
    assert packages["numpy"].startswith("1.")
    definition = next(r for r in TARGET.runners if r.name == RUNNER)
    assert why_unavailable(definition) == ""
    assert main(["doctor"]) == 0
    assert "tflite-runtime 2.14.0" in capsys.readouterr().out


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_agrees(tmp_path: Path, family: str) -> None:
    out = tmp_path / family
    source = ROOT / "examples" / "checkpoints" / f"{family}.pt"
    flags = [f"--{precision}" for precision in FAMILIES[family]]
    flags += ["--samples", "4", "--runner", RUNNER]
    assert main(["convert", str(source), "--to", "tflite", *flags, "--out", str(out)]) == 0
    bundle = read_bundle(out)
    assert tuple(a.precision for a in bundle.artifacts) == FAMILIES[family]
    for artifact in bundle.artifacts:
        (verdict,) = artifact.verdicts
        assert verdict.passed
        assert verdict.runner is not None
        assert (verdict.runner.runtime, verdict.runner.version) == (RUNNER, "2.14.0")
    layers = [c for c in bundle.artifacts[-1].verdicts[0].checks if "layer" in c.metric]
    assert layers, "int8 was not verified layer by layer"


def _graph() -> TfliteGraph:
    graph = TfliteGraph()
    x, y = (graph.add_tensor(name, (1, 4), "float32") for name in "xy")
    graph.add_op("ADD", (x, x), (y,), "AddOptions", fusedActivationFunction=0)
    graph.inputs, graph.outputs = [x], [y]
    return graph


def test_an_operator_version_that_it_lacks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_flatbuffer, "op_version", lambda _op, _tensors: 99)
    monkeypatch.setattr(write_flatbuffer, "runtime_of", lambda _code, _version: "9.9.0")
    path = tmp_path / "new.tflite"
    path.write_bytes(write_flatbuffer.write_flatbuffer(_graph(), "").data)
    words = r"tflite-runtime 2\.14\.0 lacks ADD version 99, which \S*new\.tflite asks for"
    with pytest.raises(RunnerError, match=words):
        open_runner(RunnerSpec(RUNNER, str(path)))


def test_an_operator_that_it_lacks_is_named_by_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = write_flatbuffer._operator_code

    def newer(schema: Any, code: str, version: int) -> Any:
        found = plain(schema, code, version)
        found.builtinCode, found.deprecatedBuiltinCode = 900, 127
        return found

    monkeypatch.setattr(write_flatbuffer, "_operator_code", newer)
    path = tmp_path / "new.tflite"
    path.write_bytes(write_flatbuffer.write_flatbuffer(_graph(), "").data)
    with pytest.raises(RunnerError, match=r"2\.14\.0 lacks the operator with the code 900"):
        open_runner(RunnerSpec(RUNNER, str(path)))
