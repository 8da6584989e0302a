"""The .ort file and the operators of a reduced build, read by ONNX Runtime's own tools."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
from onnxruntime.tools.reduced_build_config_parser import parse_config

from deploykit.errors import SourceError
from deploykit.model import Precision
from deploykit.target import ArtifactRequest
from deploykit_onnx import TARGET
from deploykit_onnx.write_ort_file import OrtFile, read_operators, write_ort_file
from deploykit_testing.graphs import random_feeds
from deploykit_testing.quantized import NETWORK, fused


@pytest.fixture(scope="module")
def written() -> OrtFile:
    return write_ort_file(TARGET.write(fused(NETWORK), ArtifactRequest(Precision.FP32)).data)


def test_the_runtime_loads_it(written: OrtFile) -> None:
    session = onnxruntime.InferenceSession(written.data, providers=["CPUExecutionProvider"])
    (result,) = session.run(None, random_feeds(fused(NETWORK).graph))
    assert result.shape == (1, 5)


def test_the_build_reads_its_operators_and_types(written: OrtFile, tmp_path: Path) -> None:
    config = tmp_path / "model.config"
    config.write_text(written.operators)
    (tmp_path / "model.ort").write_bytes(written.data)
    ops, types = parse_config(str(config), enable_type_reduction=True)
    found = {d: {o: set(names) for o, names in sets.items()} for d, sets in ops.items()}
    assert found == read_operators(tmp_path / "model.ort")
    assert "FusedConv" in found["com.microsoft"][1]
    assert 'MaxPool{"inputs": {"0": ["float"]}}' in written.operators
    assert types is not None


def test_a_damaged_file_is_refused(written: OrtFile, tmp_path: Path) -> None:
    path = tmp_path / "model.ort"
    path.write_bytes(written.data[:200])
    with pytest.raises(SourceError, match=r"model\.ort is damaged"):
        read_operators(path)
