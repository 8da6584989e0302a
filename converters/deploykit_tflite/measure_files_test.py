"""Timing files in a child process."""

from __future__ import annotations

import pytest

from deploykit.errors import RunnerError
from deploykit_testing.tflite import stage_of, write
from deploykit_tflite.measure_files import measure_files


def _file(side: int) -> bytes:
    shape = f"float[1,8,{side},{side}]"
    return write(
        stage_of("a = Sigmoid(x) b = Exp(a) y = Sigmoid(b)", f"{shape} x", "y")
    ).artifact.data


def test_times_follow_the_work_and_the_order_of_the_files() -> None:
    found = measure_files([_file(256), _file(2)], rounds=5, threads=1, timeout_s=60)
    large, small = found.us
    assert large > small > 0  # half a million elements against 32
    assert found.clock == "CPU"
    assert found.runtime.startswith("LiteRT ")


def test_several_threads_are_timed_by_the_wall_clock() -> None:
    found = measure_files([_file(4)], rounds=1, threads=2, timeout_s=60)
    assert found.clock == "wall clock"
    assert found.runtime.endswith("2 threads")


def test_a_file_that_the_runtime_refuses_is_a_runner_error() -> None:
    with pytest.raises(RunnerError, match="LiteRT failed while it was measured"):
        measure_files([b"nonsense"], rounds=1, threads=1, timeout_s=60)
