from __future__ import annotations

import gc
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploykit.errors import (
    ContractError,
    MissingDependencyError,
    RunnerCrashError,
    RunnerError,
    RunnerTimeoutError,
    UserError,
)
from deploykit.runners.base import Runner, RunnerDefinition, RunnerSpec
from deploykit.runners.process import open_runner
from deploykit_testing.fake_runners import MODULE, definition


def open_fake(timeout_s: float = 60.0, backend: str = "FakeBackend", **options: Any) -> Runner:
    return open_runner(RunnerSpec("fake", "model.fake", options, timeout_s), definition(backend))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_gives_back_arrays_of_every_dtype_and_shape_bit_by_bit() -> None:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "float": rng.standard_normal((2, 3, 5), dtype=np.float32),
        "half": np.array([1.5, np.nan, -np.inf], dtype=np.float16),
        "bytes": rng.integers(-128, 127, (4, 1, 1), dtype=np.int8),
        "wide": np.array([2**62 + 1, -1], dtype=np.int64),
        "flags": np.array([[True], [False]]),
        "complex": np.array([1 + 2j], dtype=np.complex64),
        "scalar": np.array(3.25, dtype=np.float64),
        "empty": np.zeros((0, 7), dtype=np.uint8),
        "turned": rng.standard_normal((3, 4), dtype=np.float32).T,
        "big end": np.array([1.0, 2.0], dtype=">f4"),
    }
    with open_fake() as runner:
        results = runner.run(arrays)
    assert list(results) == list(arrays)
    for name, array in arrays.items():
        assert results[name].dtype == array.dtype, name
        assert results[name].shape == array.shape, name
        assert results[name].tobytes() == array.tobytes(), name
        assert results[name].flags.writeable, name


def test_large_arrays_pass_both_ways_without_a_deadlock() -> None:
    array = np.arange(16 << 20, dtype=np.float32).reshape(16, 1 << 20)
    with open_fake() as runner:
        results = runner.run({"x": array, "again": array[:2]})
    np.testing.assert_array_equal(results["x"], array)
    np.testing.assert_array_equal(results["again"], array[:2])


def test_info_names_runtime_and_cpu_and_threads() -> None:
    with open_fake(threads=2) as runner:
        info = runner.info
        assert info.details["pid"] != os.getpid()
    assert (info.name, info.runtime, info.version, info.threads) == ("fake", "Fake", "1.0", 2)
    assert info.cpu.split()[0] == os.uname().machine


def test_what_a_runtime_prints_does_not_disturb_the_protocol() -> None:
    with open_fake(on_open="print", on_run="print") as runner:
        for value in range(3):
            assert runner.run({"x": np.array([value])})["x"] == value


def test_an_exception_is_told_in_the_runtimes_own_words_and_the_runner_goes_on() -> None:
    with open_fake(on_run="raise") as runner:
        for _ in range(2):
            with pytest.raises(RunnerError, match=r"'fake' failed while running model\.fake: Runt"):
                runner.run({})
        with pytest.raises(RunnerError, match="gives outputs only"):
            runner.run_all({})


@pytest.mark.parametrize("when", ["on_open", "on_run"])
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("segfault", "crashed with SIGSEGV"),
        ("SIGILL", "crashed with SIGILL"),
        ("SIGKILL", r"crashed with SIGKILL \(out of memory\?\)"),
        ("exit", r"ended with exit code 7[^|]*\| the licence has expired"),
    ],
)
def test_a_crash_is_an_error_that_names_its_signal(when: str, how: str, words: str) -> None:
    doing = {"on_open": "opening", "on_run": "running"}[when]
    with pytest.raises(RunnerCrashError, match=words) as caught, open_fake(**{when: how}) as runner:
        runner.run({"x": np.zeros(3)})
    assert f"while {doing} model.fake" in str(caught.value)


def test_a_crash_quotes_where_it_happened() -> None:
    with pytest.raises(RunnerError, match="misbehave"), open_fake(on_run="segfault") as runner:
        runner.run({})


def test_a_crash_quotes_what_the_runtime_said_before_it() -> None:
    with pytest.raises(RunnerCrashError) as caught, open_fake(on_run="last words") as runner:
        runner.run({"x": np.zeros(3, np.float32)})
    words = str(caught.value)
    assert "SIGABRT" in words
    assert "| kernel 7: the cache is gone" in words
    assert "| Fatal Python error: Aborted" in words
    assert words.count("\n    | ") <= 12


def test_a_runner_that_crashed_stays_ended() -> None:
    with open_fake(on_run="SIGABRT") as runner:
        with pytest.raises(RunnerError, match="SIGABRT"):
            runner.run({})
        with pytest.raises(RunnerError, match="has ended"):
            runner.run({})


@pytest.mark.parametrize("when", ["on_open", "on_run"])
def test_a_hang_ends_at_the_time_limit(when: str) -> None:
    with pytest.raises(RunnerTimeoutError, match=r"longer than 2 s") as caught:  # noqa: SIM117
        with open_fake(timeout_s=2.0, **{when: "hang"}) as runner:
            runner.run({})
    assert "--timeout" in caught.value.advice


def test_the_time_limit_also_ends_what_the_backend_started() -> None:
    with (
        open_fake(timeout_s=4.0, on_run="hang with a child") as runner,
        pytest.raises(RunnerError, match="longer than 4 s") as caught,
    ):
        runner.run({})
    sleeper = re.search(r"sleeper (\d+)", str(caught.value))
    assert sleeper is not None
    wait_for_end(int(sleeper[1]))


def wait_for_end(pid: int) -> None:
    """Wait until a process that is not our child is gone, or a zombie that awaits its parent."""
    deadline = time.monotonic() + 10
    while True:
        try:
            status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
        except OSError:
            return
        if status.rpartition(")")[2].split()[0] == "Z":
            return
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.05)


def test_only_the_last_of_a_flood_of_messages_is_kept() -> None:
    with (
        open_fake(on_run="flood") as runner,
        pytest.raises(RunnerError, match="after the flood") as caught,
    ):
        runner.run({})
    assert len(str(caught.value)) < 4000


def test_a_missing_package_is_told_before_any_child_starts(monkeypatch: Any) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a child was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    absent = RunnerDefinition("absent", "x:Y", "no_such_runtime.sub", "tflite", "onnx", "")
    with pytest.raises(MissingDependencyError, match=r"no_such_runtime") as caught:
        open_runner(RunnerSpec("absent", "x"), absent)
    assert "deploykit[tflite]" in str(caught.value)


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ("no_such_module:X", "ModuleNotFoundError"),
        (f"{MODULE}:Nothing", "AttributeError"),
        (f"{MODULE}:NotABackend", "is not a deploykit Backend"),
    ],
)
def test_a_backend_that_cannot_be_had(backend: str, words: str) -> None:
    broken = RunnerDefinition("broken", backend, "numpy", "test", "onnx", "")
    with pytest.raises(RunnerError, match=words):
        open_runner(RunnerSpec("broken", "x"), broken)


def test_fixed_options_cannot_be_given_otherwise() -> None:
    fixed = definition(kernels="reference")
    with pytest.raises(ContractError, match="kernels='fast'"):
        open_runner(RunnerSpec("fake", "x", {"kernels": "fast"}), fixed)
    open_runner(RunnerSpec("fake", "x", {"kernels": "reference"}), fixed).close()


def test_an_unknown_runner_is_refused_with_the_known_ones(monkeypatch: Any) -> None:
    monkeypatch.setattr("deploykit.target.available_targets", dict)
    with pytest.raises(UserError, match="onnxruntime"):
        open_runner(RunnerSpec("quantum", "x"))


def test_results_that_are_no_numbers_are_refused_and_the_runner_goes_on() -> None:
    with open_fake(on_run="give an object") as runner:
        for _ in range(2):
            with pytest.raises(RunnerError, match="not plain numbers"):
                runner.run({})


def test_inputs_that_are_no_numbers_are_refused_and_the_runner_goes_on() -> None:
    with open_fake() as runner:
        with pytest.raises(TypeError, match="not plain numbers"):
            runner.run({"x": np.array(["text"])})
        assert runner.run({"x": np.array([5])})["x"] == 5


def test_close_ends_the_child_at_once_and_may_be_called_twice() -> None:
    runner = open_fake()
    pid = runner.info.details["pid"]
    assert alive(pid)
    runner.close()
    assert not alive(pid), "the child is still there, or a zombie"
    runner.close()
    with pytest.raises(RunnerError, match="has ended"):
        runner.run({})


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_no_descriptors_threads_or_processes_are_left_behind() -> None:
    def held() -> tuple[int, int]:
        # Ours alone: a parallel test run has threads of its own, that come and go.
        pumps = [t for t in threading.enumerate() if "_pump" in t.name]
        return len(list(Path("/proc/self/fd").iterdir())), len(pumps)

    runner = open_fake()
    assert held()[1] == 1
    runner.close()
    before = held()
    assert before[1] == 0
    for how in ("", "raise", "SIGABRT", "exit"):
        runner = open_fake(on_run=how)
        if how:
            with pytest.raises(RunnerError):
                runner.run({})
        runner.close()
        with pytest.raises(RunnerError):
            open_fake(on_open=how or "raise")
    assert held() == before


@pytest.fixture
def no_garbage_collection() -> Iterator[None]:
    """hypothesis listens to it, and an interrupt inside of its callback is swallowed."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_garbage_collection")
def test_ctrl_c_in_the_parent_ends_the_child() -> None:
    with open_fake(on_run="hang") as runner:
        pid = runner.info.details["pid"]
        main = threading.get_ident()
        timer = threading.Timer(0.5, signal.pthread_kill, [main, signal.SIGINT])
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            runner.run({})
        assert not alive(pid)
        with pytest.raises(RunnerError, match="has ended"):
            runner.run({})


def test_the_child_leaves_when_its_parent_is_killed_in_the_middle_of_a_run() -> None:
    script = (
        "from deploykit.runners.process_test import open_fake\n"
        "runner = open_fake(on_run='hang')\n"
        "print(runner.info.details['pid'], flush=True)\n"
        "runner.run({})\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    wait_for_end(pid)


def test_the_child_imports_from_where_the_parent_does_and_not_from_the_current_folder(
    tmp_path: Path, monkeypatch: Any
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "ctypes.py").write_text("raise SystemExit('hijacked')\n")
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "my_backend.py").write_text(
        "from deploykit_testing.fake_runners import FakeBackend\n"
        "class MyBackend(FakeBackend):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "plugins")
    monkeypatch.chdir(tmp_path / "here")
    mine = RunnerDefinition("mine", "my_backend:MyBackend", "my_backend", "test", "onnx", "")
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != ""])
    with open_runner(RunnerSpec("mine", "x"), mine) as runner:
        assert runner.run({"x": np.array([1])})["x"] == 1
