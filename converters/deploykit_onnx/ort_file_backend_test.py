"""The runner of .ort files: what it gives, and of which artefacts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deploykit.errors import RunnerError
from deploykit.model import Precision
from deploykit.runners.base import RunnerSpec
from deploykit.runners.process import open_runner
from deploykit.target import ArtifactRequest
from deploykit_onnx import TARGET
from deploykit_testing.graphs import random_feeds
from deploykit_testing.quantized import NETWORK, fused

(RUNNER,) = (r for r in TARGET.runners if r.name == "onnxruntime-ort")


def test_it_gives_what_the_model_gives(tmp_path: Path) -> None:
    model = fused(NETWORK)
    artifact = TARGET.write(model, ArtifactRequest(Precision.FP32, {"ort": "yes"}))
    files = artifact.files("tiny.fp32")
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    file = RUNNER.file_to_run("tiny.fp32.onnx", files)
    assert file == "tiny.fp32.ort"
    feeds = random_feeds(model.graph)
    with (
        open_runner(RunnerSpec("onnxruntime", str(tmp_path / "tiny.fp32.onnx"))) as plain,
        open_runner(RunnerSpec(RUNNER.name, str(tmp_path / file))) as ours,
    ):
        wanted, found = plain.run(feeds), ours.run(feeds)
        values = ours.run_all(feeds)
        assert ours.info.runtime == "ONNX Runtime"
    assert set(found) == set(wanted) == {"y"}
    np.testing.assert_allclose(found["y"], wanted["y"], atol=1e-5)
    np.testing.assert_array_equal(values["y"], found["y"])
    assert {"r1", "ghost", "p"} <= set(values)


def test_artefacts_without_one_are_not_its_own() -> None:
    assert RUNNER.file_to_run("m.int8.onnx", ["m.int8.onnx"]) == ""


def test_a_damaged_file_is_the_runtimes_to_refuse(tmp_path: Path) -> None:
    (tmp_path / "m.ort").write_bytes(b"\0\0\0\0ORTM" + bytes(64))
    with (
        pytest.raises(RunnerError, match="onnxruntime-ort"),
        open_runner(RunnerSpec(RUNNER.name, str(tmp_path / "m.ort"))) as runner,
    ):
        runner.run({})
