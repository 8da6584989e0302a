"""The runners: arithmetic, options, errors, and Vulkan where a device is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploykit.errors import RunnerError, SourceError
from deploykit.model import Precision
from deploykit.parity.layers import compare_layers
from deploykit.runners.base import RunnerSpec
from deploykit.runners.process import open_runner
from deploykit_ncnn import TARGET, backends
from deploykit_ncnn.backends import NcnnBackend, why_no_vulkan
from deploykit_testing.ncnn import (
    Written,
    error_of,
    normal,
    quantized,
    random_inputs,
    run_onnxruntime,
    stage_of,
    write,
)

BODY = (
    "c = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, W, b) r = Relu(c) "
    "d = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=16>(r, D) a = Add(d, r) "
    "y = Conv<kernel_shape=[1,1]>(a, V)"
)
CONSTANTS = {
    "W": normal(16, 3, 3, 3),
    "b": normal(16, seed=1),
    "D": normal(16, 1, 3, 3, seed=2),
    "V": normal(8, 16, 1, 1, seed=3),
}
MODEL = stage_of(BODY, "float[1,3,9,7] x", "y", CONSTANTS)


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return write(tmp_path, MODEL)


def tensors(written: Written) -> dict[str, np.ndarray]:
    inputs = random_inputs(MODEL)
    return {s.runtime_name: s.encode(inputs[s.name]) for s in written.artifact.inputs}


def test_every_runner_is_told_with_its_options() -> None:
    names = [r.name for r in TARGET.runners]
    assert names == [
        "ncnn",
        "ncnn-vulkan",
        "ncnn-default",
        "ncnn-old",
        "ncnn-arm64",
        "ncnn-default-arm64",
    ]
    assert [r.on_request for r in TARGET.runners] == [False] * 3 + [True] * 3


def test_the_runner_names_what_decides_its_numbers(written: Written) -> None:
    info = NcnnBackend(str(written.path), {"threads": 2}).info()
    assert info["runtime"] == "ncnn"
    assert info["threads"] == 2
    assert info["kernels"] == "CPU, float32 arithmetic"
    assert info["details"] == {
        "fp16_storage": False,
        "fp16_arithmetic": False,
        "bf16_storage": False,
        "packing": True,
        "light_mode": True,
    }
    default = NcnnBackend(str(written.path), {"arithmetic": "default"}).info()
    assert default["kernels"] == "CPU, default arithmetic"
    assert default["details"]["fp16_arithmetic"] is True


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"packing": False},
        {"light_mode": False},
        {"threads": 2},
        {"packing": False, "light_mode": False},
    ],
)
def test_options_do_not_change_float32_numbers(written: Written, options: dict[str, Any]) -> None:
    inputs = random_inputs(MODEL)
    wanted = run_onnxruntime(MODEL, inputs)["y"]
    assert error_of(written.run(inputs, **options)["y"], wanted) <= 1e-5
    assert error_of(written.run(inputs, arithmetic="default", **options)["y"], wanted) <= 2e-2


def test_a_runner_can_run_again_and_again(written: Written) -> None:
    backend = NcnnBackend(str(written.path), {})
    first = backend.run(tensors(written))["out0"]
    values = backend.run_all(tensors(written))
    assert backend.run(tensors(written))["out0"].tolist() == first.tolist()
    assert values["out0"].tolist() == first.tolist()
    assert sorted(values) == ["a", "d", "out0", "r"]


def test_through_the_child_process(written: Written) -> None:
    with open_runner(RunnerSpec("ncnn", str(written.path), {"threads": 1})) as runner:
        found = runner.run(tensors(written))["out0"]
        everything = runner.run_all(tensors(written))
        assert runner.info.runtime == "ncnn"
    assert found.shape == (8, 9, 7)
    assert everything["r"].shape == (16, 9, 7)


def test_layer_by_layer(written: Written) -> None:
    inputs = random_inputs(MODEL)
    rows = compare_layers(written.path, written.artifact, MODEL, runner="ncnn", inputs=inputs)
    assert [r.value for r in rows] == ["r", "d", "a", "y"]
    assert max(r.max_error_over_range for r in rows) <= 1e-5


def test_a_broken_weight_shows_at_its_layer(written: Written) -> None:
    weights = written.path.with_suffix(".bin")
    data = bytearray(weights.read_bytes())
    offset = 4 + CONSTANTS["W"].nbytes + CONSTANTS["b"].nbytes + 4
    data[offset : offset + 4] = np.float32(40).tobytes()
    weights.write_bytes(bytes(data))
    rows = compare_layers(
        written.path, written.artifact, MODEL, runner="ncnn", inputs=random_inputs(MODEL)
    )
    by_value = {r.value: r.max_error_over_range for r in rows}
    assert by_value["r"] <= 1e-5
    assert by_value["d"] >= 1e-2


def test_integers_handed_on_come_as_integers(tmp_path: Path) -> None:
    body = "r = Conv<kernel_shape=[1,1]>(x, W) y = Conv<kernel_shape=[1,1]>(r, V)"
    constants = {"W": normal(16, 3, 1, 1), "V": normal(8, 16, 1, 1, seed=1)}
    model = stage_of(body, "float[1,3,9,7] x", "y", constants)
    inputs = random_inputs(model)
    written = write(tmp_path, quantized(model, inputs), Precision.INT8)
    spec = written.artifact.value_specs["r"]
    assert spec.dtype == "int8"
    backend = NcnnBackend(str(written.path), {})
    found = backend.run_all({"in0": inputs["x"][0]})["r"]
    assert np.array_equal(found, np.rint(found))
    assert 100 < np.abs(found).max() <= 127


@pytest.mark.parametrize(
    ("options", "words"),
    [({"arithmetic": "float8"}, "float32, default"), ({"colour": "red"}, "colour")],
)
def test_unknown_options_are_refused(written: Written, options: dict[str, Any], words: str) -> None:
    with pytest.raises(RunnerError, match=words):
        NcnnBackend(str(written.path), options)


def test_other_inputs_are_refused(written: Written) -> None:
    backend = NcnnBackend(str(written.path), {})
    with pytest.raises(RunnerError, match="in0"):
        backend.run({"x": np.zeros((3, 9, 7), np.float32)})


def test_a_missing_short_or_long_bin_file_is_refused(written: Written) -> None:
    weights = written.path.with_suffix(".bin")
    whole = weights.read_bytes()
    for data in (whole[:50], whole + b"\0\0\0\0", b"\1\2\3\4" + whole[4:]):
        weights.write_bytes(data)
        with pytest.raises(SourceError, match="is damaged"):
            NcnnBackend(str(written.path), {})
    weights.unlink()
    with pytest.raises(SourceError, match=r"beside the \.param file"):
        NcnnBackend(str(written.path), {})


def test_weights_that_ncnn_cannot_use_are_refused_by_it(written: Written) -> None:
    text = written.path.read_text()
    written.path.write_text(text.replace("1=3 4=1", "1=3 3=-1 4=1", 1))
    with pytest.raises(RunnerError, match="refuses the layers"):
        NcnnBackend(str(written.path), {})


def test_a_layer_that_ncnn_does_not_have_is_refused(written: Written) -> None:
    text = written.path.read_text()
    written.path.write_text(text.replace("BinaryOp ", "TernaryOp"))
    with pytest.raises(RunnerError, match="refuses the layers"):
        NcnnBackend(str(written.path), {})


def test_a_damaged_param_file_is_a_source_error(written: Written) -> None:
    written.path.write_text("7767517\nnonsense\n")
    with pytest.raises(SourceError):
        NcnnBackend(str(written.path), {})


# -- Vulkan


@pytest.fixture(scope="module")
def no_vulkan() -> str:
    return why_no_vulkan()


def test_vulkan_computes_the_same_numbers(written: Written, no_vulkan: str) -> None:
    if no_vulkan:
        pytest.skip(no_vulkan)
    inputs = random_inputs(MODEL)
    spec = RunnerSpec("ncnn-vulkan", str(written.path), {"threads": 1})
    with open_runner(spec) as runner:
        found = runner.run(tensors(written))["out0"]
        values = runner.run_all(tensors(written))
        assert runner.info.kernels == "Vulkan, float32 arithmetic"
        assert runner.info.details["device"]
    wanted = run_onnxruntime(MODEL, inputs, everything=True)
    assert error_of(found[None], wanted["y"]) <= 1e-5
    assert error_of(values["d"][None], wanted["d"]) <= 1e-5


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("raise SystemExit(3)", "no Vulkan device"),
        ("raise OSError('driver fell over')", "driver fell over"),
        ("import time; time.sleep(60)", "did not answer"),
        ("import os; os.abort()", "failed"),
        ("", ""),
    ],
)
def test_the_probe_says_why(script: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_PROBE", script)
    monkeypatch.setattr(backends, "_PROBE_TIMEOUT_S", 1.5)
    reason = why_no_vulkan()
    assert words in reason
    assert bool(reason) == bool(words)


def test_without_a_device_the_backend_says_what_to_install(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ncnn

    monkeypatch.setattr(ncnn, "get_gpu_count", lambda: 0)
    with pytest.raises(RunnerError, match="mesa-vulkan-drivers"):
        NcnnBackend(str(written.path), {"vulkan": True})


def test_writing_imports_no_ncnn(written: Written) -> None:
    code = (
        "import sys\nfrom deploykit_ncnn import TARGET\nfrom pathlib import Path\n"
        f"TARGET.inspect(Path({str(written.path)!r}))\nassert 'ncnn' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
