"""TFLM's kernels: an int8 file gives what LiteRT's reference kernels give, but for rounding.

Its environment is made as the one of ``tflite-runtime`` is (`test_tflite_runtime`): by pip, in a
folder of the tests, unless the user has it; 3-10 s, 80 MB.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploykit.bundle import GOLDEN, read_bundle
from deploykit.cli import main
from deploykit.errors import RunnerError, UserError
from deploykit.golden import Golden
from deploykit.runners.base import RunnerSpec
from deploykit.runners.environments import FOLDER_VARIABLE, installed_in, make_environment
from deploykit.runners.process import open_runner
from deploykit_tflite import write_flatbuffer
from deploykit_tflite.definition import TFLITE_MICRO
from deploykit_tflite.tflite_graph import TfliteGraph

ROOT = Path(__file__).resolve().parent.parent
RUNNER = "tflite-micro"
FAMILY = "mobilenet_v3_small"


@pytest.fixture(scope="module", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if not installed_in(TFLITE_MICRO):
            patch.setenv(FOLDER_VARIABLE, str(tmp_path_factory.mktemp("environments")))
            patch.setenv("PIP_TIMEOUT", "10")  # seconds; without a connection, be quick
            patch.setenv("PIP_RETRIES", "1")
            try:
                make_environment(TFLITE_MICRO)
            except UserError as error:
                pytest.skip(f"no environment for tflite-micro: {error}")
        yield


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory, environment: None) -> Path:
    out = tmp_path_factory.mktemp("converted") / "b"
    source = str(ROOT / "examples" / "checkpoints" / f"{FAMILY}.pt")
    flags = ["--to", "tflite", "--fp32", "--int8", "--w8", "--samples", "4"]
    runners = ["--runner", "litert-reference", "--runner", RUNNER]
    # w8 is what TFLM refuses.
    assert main(["convert", source, *flags, *runners, "--quiet", "--out", str(out)]) == 1
    return out


def test_int8_is_close_to_the_reference_kernels(converted: Path) -> None:
    runs = Golden.from_npz(converted / GOLDEN).runs[f"{FAMILY}.int8.tflite"]
    artifact = next(a for a in read_bundle(converted).artifacts if a.precision == "int8")
    for spec in artifact.outputs:
        assert spec.quantization is not None
        apart = np.abs(runs[RUNNER][spec.name] - runs["litert-reference"][spec.name])
        # GhostNet is equal to the bit; here one of 40 values is a step off.
        assert apart.max() <= 3.5 * spec.quantization.scale[0]


def test_verdicts_name_the_arena_and_what_is_not_supported(converted: Path) -> None:
    verdicts = {
        v.precision: v
        for a in read_bundle(converted).artifacts
        for v in a.verdicts
        if v.runner_name == RUNNER
    }
    arenas = {}
    for precision in ("fp32", "int8"):
        verdict = verdicts[precision]
        assert verdict.passed
        assert verdict.runner is not None
        assert verdict.runner.runtime == "TFLM"
        arenas[precision] = verdict.runner.details["arena_bytes"]
        assert arenas[precision] % 16 == 0
    assert arenas["int8"] < arenas["fp32"]
    assert any(check.metric == "layer_error_lsb" for check in verdicts["int8"].checks)
    assert verdicts["w8"].outcome == "fail"
    assert "does not take CONV_2D, operator" in verdicts["w8"].error
    assert "Hybrid models are not supported" in verdicts["w8"].error


def _save(path: Path, monkeypatch: pytest.MonkeyPatch, code: int | None = None) -> str:
    graph = TfliteGraph()
    x, y = (graph.add_tensor(name, (1, 4), "float32") for name in "xy")
    graph.add_op("ADD", (x, x), (y,), "AddOptions", fusedActivationFunction=0)
    graph.inputs, graph.outputs = [x], [y]
    plain = write_flatbuffer._operator_code

    def other(schema: Any, name: str, version: int) -> Any:
        found = plain(schema, name, version)
        if code is not None:
            found.builtinCode, found.deprecatedBuiltinCode = code, min(code, 127)
        return found

    monkeypatch.setattr(write_flatbuffer, "_operator_code", other)
    path.write_bytes(write_flatbuffer.write_flatbuffer(graph, "").data)
    return str(path)


def test_several_samples_and_every_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    with open_runner(RunnerSpec(RUNNER, _save(tmp_path / "f.tflite", monkeypatch))) as runner:
        assert runner.run({"x": x})["y"].tolist() == (2 * x).tolist()
        values = runner.run_all({"x": x[:1]})
        assert {n: v.tolist() for n, v in values.items()} == {
            "x": [[0, 1, 2, 3]],
            "y": [[0, 2, 4, 6]],
        }
        with pytest.raises(RunnerError, match="expected: shape"):
            runner.run({"x": x.astype(np.int8)})


def test_an_operator_that_it_lacks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gelu = 150
    path = _save(tmp_path / "gelu.tflite", monkeypatch, gelu)
    with pytest.raises(RunnerError, match=r"TFLM \S+ lacks the operator GELU"):
        open_runner(RunnerSpec(RUNNER, path))
