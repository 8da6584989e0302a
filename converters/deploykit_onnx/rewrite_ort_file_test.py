"""What stands in front of an .ort file: the same content in one order, or with more outputs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from deploykit.errors import UserError
from deploykit.model import Model, Precision
from deploykit.target import ArtifactRequest
from deploykit_onnx import TARGET, rewrite_ort_file
from deploykit_onnx.rewrite_ort_file import (
    expose_values,
    read_kernel_types,
    read_session,
    sort_kernel_types,
)
from deploykit_onnx.write_ort_file import write_ort_file
from deploykit_quantize.quantizer import quantize_model
from deploykit_testing.graphs import random_feeds
from deploykit_testing.quantized import NETWORK, calibrate, fused


@pytest.fixture(scope="module")
def stage() -> Model:
    model = fused(NETWORK)
    policy = TARGET.policy(Precision.INT8)
    assert policy is not None
    return quantize_model(model, policy, calibrate(model))


@pytest.fixture(scope="module")
def onnx_file(stage: Model) -> bytes:
    return TARGET.write(stage, ArtifactRequest(Precision.INT8)).data


@pytest.fixture
def written(onnx_file: bytes, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """As ONNX Runtime writes it."""
    monkeypatch.setattr("deploykit_onnx.write_ort_file.sort_kernel_types", bytes)
    return write_ort_file(onnx_file).data


def open_session(data: bytes) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])


def test_other_processes_write_the_same_bytes(onnx_file: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(onnx_file)
    code = (
        "import hashlib, sys; from pathlib import Path; "
        "from deploykit_onnx.write_ort_file import write_ort_file; "
        "print(hashlib.sha256(write_ort_file(Path(sys.argv[1]).read_bytes()).data).hexdigest())"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "model.onnx")]
    found = [subprocess.run(command, capture_output=True, check=True).stdout for _ in range(3)]
    assert len(found[0].strip()) == 64
    assert len(set(found)) == 1


def test_any_order_of_the_types_comes_out_as_one(
    written: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that hold the types in other orders, as other processes would write them."""
    real = read_kernel_types
    shuffled = []
    for seed in range(4):
        rng = np.random.default_rng(seed)

        def in_another_order(session: object, rng: np.random.Generator = rng) -> object:
            found = list(real(session).items())
            return dict(found[i] for i in rng.permutation(len(found)))

        with monkeypatch.context() as patch:
            patch.setattr(rewrite_ort_file, "read_kernel_types", in_another_order)
            shuffled.append(sort_kernel_types(written))
    assert len(set(shuffled)) > 1
    assert {sort_kernel_types(one) for one in shuffled} == {sort_kernel_types(written)}


def test_nothing_else_changes(stage: Model, written: bytes) -> None:
    ordered = sort_kernel_types(written)
    types = read_kernel_types(read_session(ordered))
    assert types == read_kernel_types(read_session(written))
    assert list(types) == sorted(types)
    assert b":QLinearConv:10" in types
    assert len(ordered) % 8 == 0
    feeds = random_feeds(stage.graph)
    for a, b in zip(
        *(open_session(data).run(None, feeds) for data in (written, ordered)), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_sorting_twice_changes_nothing(written: bytes) -> None:
    once = sort_kernel_types(written)
    assert sort_kernel_types(once) == once


def test_another_layout_of_the_file_is_refused(written: bytes) -> None:
    # A file whose model lies in front of its root's other parts, as none does today.
    moved = expose_values(written)
    with pytest.raises(UserError, match="orders the parts"):
        sort_kernel_types(moved)


def test_exposed_values_are_those_of_the_file(stage: Model, written: bytes) -> None:
    feeds = random_feeds(stage.graph)
    whole, exposed = open_session(written), open_session(expose_values(written))
    names = [v.name for v in exposed.get_outputs()]
    assert names[: len(whole.get_outputs())] == [v.name for v in whole.get_outputs()]
    assert len(names) == len(set(names)) > 10
    values = dict(zip(names, exposed.run(names, feeds), strict=True))
    for name, wanted in zip(
        [v.name for v in whole.get_outputs()], whole.run(None, feeds), strict=True
    ):
        np.testing.assert_array_equal(values[name], wanted)
    assert [a.dtype for a in values.values()].count(np.dtype(np.int8)) > 10
