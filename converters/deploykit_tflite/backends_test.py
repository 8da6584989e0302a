"""LiteRT behind the backend interface."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deploykit.errors import RunnerError
from deploykit.model import Precision
from deploykit.runners.base import RunnerSpec
from deploykit.runners.process import open_runner
from deploykit_testing.tflite import (
    quantized,
    random_inputs,
    run_onnxruntime,
    stage_of,
    write,
)
from deploykit_tflite import write_flatbuffer
from deploykit_tflite.backends import LiteRtBackend, kept_tensors


@pytest.fixture
def model():
    weights = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    return stage_of(
        "c = Conv<kernel_shape=[3,3], strides=[1,1], pads=[1,1,1,1], dilations=[1,1], group=1>"
        "(x, W) r = Relu(c) y = Sigmoid(r)",
        "float[1,3,6,6] x",
        "y",
        {"W": weights},
    )


@pytest.fixture
def path(model, tmp_path: Path) -> str:
    file = tmp_path / "model.tflite"
    file.write_bytes(write(model).artifact.data)
    return str(file)


@pytest.mark.parametrize(
    ("kernels", "name", "partitions"),
    [("xnnpack", "XNNPACK", 1), ("builtin", "builtin", 0), ("reference", "reference", 0)],
)
def test_run_and_info(model, path: str, kernels: str, name: str, partitions: int) -> None:
    backend = LiteRtBackend(path, {"kernels": kernels, "threads": 2})
    info = backend.info()
    assert info["runtime"] == "LiteRT"
    assert info["kernels"] == name
    assert info["threads"] == 2
    assert info["details"]["partitions"] == partitions
    assert info["details"]["ops"] == 2
    assert info["details"]["delegated_ops"] == (2 if partitions else 0)
    inputs = random_inputs(model)
    found = backend.run({"x": np.moveaxis(inputs["x"], 1, -1)})
    expected = run_onnxruntime(model, inputs)["y"]
    np.testing.assert_allclose(np.moveaxis(found["y"], -1, 1), expected, atol=1e-5)


@pytest.mark.parametrize("kernels", ["xnnpack", "reference"])
def test_run_all_gives_every_computed_value(model, path: str, kernels: str) -> None:
    inputs = random_inputs(model)
    backend = LiteRtBackend(path, {"kernels": kernels})
    values = backend.run_all({"x": np.moveaxis(inputs["x"], 1, -1)})
    assert set(values) == {"x", "r", "y"}
    expected = run_onnxruntime(model, inputs, everything=True)
    for name in ("r", "y"):
        np.testing.assert_allclose(np.moveaxis(values[name], -1, 1), expected[name], atol=1e-5)


def test_several_samples_are_run_one_by_one(path: str) -> None:
    backend = LiteRtBackend(path, {})
    samples = np.random.default_rng(0).standard_normal((3, 6, 6, 3)).astype(np.float32)
    together = backend.run({"x": samples})["y"]
    assert together.shape == (3, 6, 6, 4)
    for i in range(3):
        np.testing.assert_array_equal(
            together[i : i + 1], backend.run({"x": samples[i : i + 1]})["y"]
        )


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"z": np.zeros((1, 6, 6, 3), np.float32)}, "inputs"),
        ({"x": np.zeros((1, 3, 6, 6), np.float32)}, "shape"),
        ({"x": np.zeros((1, 6, 6, 3), np.float64)}, "float64"),
        ({"x": np.zeros((0, 6, 6, 3), np.float32)}, "none"),
    ],
)
def test_inputs_that_do_not_fit(path: str, inputs: dict, words: str) -> None:
    with pytest.raises(RunnerError, match=words):
        LiteRtBackend(path, {}).run(inputs)


def test_unknown_kernels_and_damaged_files(path: str, tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match="kernel set"):
        LiteRtBackend(path, {"kernels": "quantum"})
    with pytest.raises(RunnerError, match="package 'torch'"):
        LiteRtBackend(path, {"package": "torch"})
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(b"\x1c\0\0\0TFL3" + bytes(100))
    with pytest.raises(RunnerError, match="refuses"):
        LiteRtBackend(str(bad), {})


def test_an_operator_version_that_the_runtime_lacks_is_named(
    model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_flatbuffer, "op_version", lambda _op, _tensors: 99)
    monkeypatch.setattr(write_flatbuffer, "runtime_of", lambda _code, _version: "9.9.0")
    file = tmp_path / "new.tflite"
    file.write_bytes(write(model).artifact.data)
    with pytest.raises(RunnerError, match=r"LiteRT [\d.]+ lacks CONV_2D version 99, which .*new"):
        LiteRtBackend(str(file), {})


def test_where_xnnpack_takes_nothing_other_kernels_are_named(tmp_path: Path) -> None:
    indices = {"I": np.array([2, 0], np.int64)}
    stage = stage_of("y = Gather<axis=1>(x, I)", "float[1,3,2,2] x", "y", indices)
    file = tmp_path / "gather.tflite"
    file.write_bytes(write(stage).artifact.data)
    info = LiteRtBackend(str(file), {}).info()
    assert (info["kernels"], info["details"]["partitions"]) == ("builtin", 0)


def test_a_tensor_that_is_written_over_is_not_given() -> None:
    memory = [np.zeros(4, np.float32) for _ in range(3)]
    places = {0: memory[0], 1: memory[1], 2: memory[1], 3: memory[2]}  # 2 is computed in 1's place

    class Interpreter:
        def get_input_details(self) -> list[dict]:
            return [{"index": 0}]

        def _get_ops_details(self) -> list[dict]:
            ops = [("CONV_2D", 1), ("ADD", 2), ("CONV_2D", 3), ("DELEGATE", 7)]
            return [{"op_name": name, "outputs": [t]} for name, t in ops]

        def tensor(self, index: int):
            return lambda: places[index]

    assert kept_tensors(Interpreter()) == {0, 2, 3}


@pytest.mark.parametrize("name", ["litert", "litert-reference"])
def test_in_a_child_process(model, tmp_path: Path, name: str) -> None:
    inputs = random_inputs(model)
    written = write(quantized(model, inputs), Precision.INT8)
    file = tmp_path / "int8.tflite"
    file.write_bytes(written.artifact.data)
    (spec,) = written.artifact.inputs
    with open_runner(RunnerSpec(name, str(file))) as runner:
        assert runner.info.runtime == "LiteRT"
        found = runner.run({"x": spec.encode(inputs["x"])})
        values = runner.run_all({"x": spec.encode(inputs["x"])})
    direct = written.run(inputs, "reference" if "reference" in name else "xnnpack")
    np.testing.assert_array_equal(written.artifact.outputs[0].decode(found["y"]), direct["y"])
    assert set(written.artifact.value_names.values()) <= set(values)
