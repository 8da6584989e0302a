from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from deploykit.errors import ContractError, ParityError
from deploykit.parity.samples import encoded_batches, run_samples
from deploykit.runners.base import Runner, RunnerInfo
from deploykit.tensors import Array, QuantParams, TensorSpec


class SumOfChannels(Runner):
    """Takes NHWC int8, gives int8 sums; remembers the batches that it saw."""

    def __init__(self) -> None:
        self.seen: list[Array] = []

    @property
    def info(self) -> RunnerInfo:
        return RunnerInfo("sum", "numpy", "1", "numpy", "", 1)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.seen.append(inputs["x"])
        return {"y": inputs["x"].sum(axis=(1, 2)).astype(np.int8)}

    def run_all(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return self.run(inputs)

    def close(self) -> None:
        pass


QUARTERS = QuantParams((0.25,), (0,))
SPECS = (TensorSpec("x", (2, 1, 2, 3), "int8", "NHWC", QUARTERS),)
OUTPUTS = (TensorSpec("y", (2, 3), "int8", "plain", QUARTERS),)
X = (np.arange(5 * 3 * 2, dtype=np.float32).reshape(5, 3, 1, 2) / 4) % 3


def test_samples_go_in_the_files_batches_layout_and_integers() -> None:
    runner = SumOfChannels()
    outputs = run_samples(runner, {"x": X}, SPECS, OUTPUTS)
    assert [(batch.shape, batch.dtype.name) for batch in runner.seen] == [
        ((2, 1, 2, 3), "int8")
    ] * 3
    np.testing.assert_array_equal(runner.seen[1][0, 0, :, 1], X[2, 1, 0] * 4)
    np.testing.assert_array_equal(outputs["y"], X.sum(axis=(2, 3)))


def test_the_last_batch_is_filled_with_its_last_sample_which_counts_once() -> None:
    batches = list(encoded_batches({"x": X}, SPECS))
    assert [count for count, _ in batches] == [2, 2, 1]
    last = batches[-1][1]["x"]
    np.testing.assert_array_equal(last[0], last[1])


def test_inputs_with_other_numbers_of_samples_are_refused() -> None:
    pair = (TensorSpec("x", (1, 2)), TensorSpec("z", (1, 2)))
    inputs = {"x": np.zeros((2, 2), np.float32), "z": np.zeros((3, 2), np.float32)}
    with pytest.raises(ContractError, match="'x': 2, 'z': 3"):
        list(encoded_batches(inputs, pair))


def test_a_runtime_with_names_of_its_own_gets_and_gives_those() -> None:
    class Named(SumOfChannels):
        def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
            return {"out0": inputs["in0"] * 2}

    spec = TensorSpec("x", (3, 1, 2), layout="CHW", tensor="in0")
    result = TensorSpec("y", (3, 1, 2), layout="CHW", tensor="out0")
    outputs = run_samples(Named(), {"x": X}, (spec,), (result,))
    np.testing.assert_array_equal(outputs["y"], X * 2)
    with pytest.raises(ParityError, match="'out1'"):
        run_samples(Named(), {"x": X}, (spec,), (TensorSpec("y", (3, 1, 2), tensor="out1"),))
