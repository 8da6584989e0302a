"""What its own runtime does not load is not written, with and without verification."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

import deploykit
from deploykit.bundle import read_bundle
from deploykit.errors import UnsupportedModelError
from deploykit.flow.loading import split_loadable
from deploykit.flow.make import BuiltArtifact
from deploykit.model import Model, Precision
from deploykit.target import Artifact, ArtifactRequest
from deploykit.verdict import Verdict
from deploykit_testing.graphs import as_model, parse

TEXT = "g (float[1,2,4,4] x) => (float[1,2,4,4] y) { y = Relu(x) }"


def damage(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ONNX target writes half of its file."""
    from deploykit_onnx.target import write_artifact

    def half(model: Model, request: ArtifactRequest) -> Artifact:
        artifact = write_artifact(model, request)
        return replace(artifact, data=artifact.data[: len(artifact.data) // 2])

    monkeypatch.setattr("deploykit_onnx.target.write_artifact", half)


@pytest.mark.parametrize("verify", [True, False])
def test_what_does_not_load_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verify: bool
) -> None:
    pytest.importorskip("ncnn")
    damage(monkeypatch)
    request = deploykit.ConvertRequest(
        targets=("onnx", "ncnn"), out=tmp_path / "b", verify=verify, samples=2
    )
    result = deploykit.convert(as_model(parse(TEXT)), request)
    assert result.report.exit_code == 3
    assert [a.target for a in read_bundle(tmp_path / "b").artifacts] == ["ncnn"]
    (entry,) = result.report.skipped
    assert (entry.target, entry.refused) == ("onnx", True)
    assert "does not load it, so it is not written" in entry.reason
    assert not list((tmp_path / "b").glob("*.onnx"))


@pytest.mark.parametrize(
    ("runners", "kept"),
    [
        (("onnxruntime-old",), True),
        (("onnxruntime-optimized",), False),
        (("onnxruntime-optimized", "onnxruntime-old"), False),
    ],
)
def test_a_runner_on_request_does_not_decide_what_is_written(
    runners: tuple[str, ...], kept: bool
) -> None:
    artifact = SimpleNamespace(target="onnx", precision=Precision.FP32)
    item = cast("BuiltArtifact", SimpleNamespace(path="m.onnx", artifact=artifact))
    verdicts = [
        Verdict("onnx", "fp32", "m.onnx", name, None, (), 0, "it refuses the file")
        for name in runners
    ]
    if kept:
        assert split_loadable([item], {"m.onnx": verdicts}) == ([item], [])
        return
    with pytest.raises(UnsupportedModelError, match="it refuses the file"):
        split_loadable([item], {"m.onnx": verdicts})


def test_where_nothing_loads_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(monkeypatch)
    request = deploykit.ConvertRequest(targets=("onnx",), out=tmp_path / "b", verify=False)
    with pytest.raises(UnsupportedModelError, match="does not load it"):
        deploykit.convert(as_model(parse(TEXT)), request)
    assert not (tmp_path / "b").exists()
