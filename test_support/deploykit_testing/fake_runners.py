"""Backends that misbehave on demand: what the tests of runners and parity open.

It holds no tests; its name keeps it out of the wheel, and the child process imports it by name.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from deploykit.runners.base import Backend, RunnerDefinition
from deploykit.tensors import Array

MODULE = "deploykit_testing.fake_runners"


def definition(backend: str = "FakeBackend", **options: Any) -> RunnerDefinition:
    """A runner on one of this module's backends."""
    return RunnerDefinition(
        name="fake",
        backend=f"{MODULE}:{backend}",
        requires="numpy",
        extra="test",
        runs="fake",
        description="misbehaves on demand",
        options=options,
    )


class FakeBackend(Backend):
    """Does what its options ``on_open`` and ``on_run`` say; without them, gives inputs back."""

    def __init__(self, path: str, options: Mapping[str, Any]) -> None:
        self.options = options
        misbehave(options.get("on_open", ""))

    def info(self) -> Mapping[str, Any]:
        return {
            "runtime": "Fake",
            "version": "1.0",
            "kernels": "numpy",
            "threads": int(self.options.get("threads", 1)),
            "details": {"pid": os.getpid()},
        }

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        misbehave(self.options.get("on_run", ""))
        if self.options.get("on_run") == "give an object":
            return {"y": np.array([object()])}
        return dict(inputs)


class NotABackend:
    """No `Backend`."""

    def __init__(self, path: str, options: Mapping[str, Any]) -> None:
        pass


class ModelBackend(Backend):
    """A model of one input ``x`` (1, 3, 2, 2) and one output ``y`` (1, 4): see `model_of`.

    Options: ``error`` (added to the first element), ``result`` (``nan``, ``constant``, ``missing``,
    ``wrong shape``), ``steps`` (int8 output with 1/8 a step, moved by so many steps), ``values``
    (whether intermediate values can be had).
    """

    def __init__(self, path: str, options: Mapping[str, Any]) -> None:
        self.options = options
        self.runs = 0

    def info(self) -> Mapping[str, Any]:
        return {
            "runtime": "Fake",
            "version": "1.0",
            "kernels": "numpy",
            "threads": 1,
            "details": {},
        }

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        if inputs["x"].shape[0] != 1:
            raise ValueError(f"one sample at a time, not {inputs['x'].shape[0]}")
        y = model_of(inputs["x"])
        y[0, 0] += self.options.get("error", 0.0)
        result = self.options.get("result")
        self.runs += 1
        if result == "nan" and self.runs == 2:  # in one element of one sample only
            y[0, 3] = np.nan
        if result == "constant":
            y = np.full_like(y, 0.25)
        if result == "missing":
            return {"z": y}
        if result == "wrong shape":
            return {"y": y[:, :3]}
        if "steps" in self.options:
            y = np.clip(np.rint(y * 8) + self.options["steps"], -128, 127).astype(np.int8)
        return {"y": y}


def model_of(x: Array) -> Array:
    """Sums of channels and corners: float32 (n, 3, 2, 2) to (n, 4)."""
    sums = x.sum(axis=(2, 3))
    return np.concatenate([sums * 2, x[:, :1, 0, 0]], axis=1).astype(np.float32)


class Interpreter(FakeBackend):
    """Tells where it runs, and whether a package of the parent's environment is to be found."""

    def info(self) -> Mapping[str, Any]:
        foreign = "onnx" if importlib.util.find_spec("onnx") is not None else ""
        return {**super().info(), "details": {"prefix": sys.prefix, "foreign": foreign}}


def misbehave(how: str) -> None:
    """Do one of the things that runtimes have been seen to do."""
    if how == "raise":
        raise RuntimeError("failed to prepare node 7: unsupported padding")
    if how == "hang":
        time.sleep(600)
    elif how == "hang with a child":
        sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print(f"sleeper {sleeper.pid}", file=sys.stderr, flush=True)
        sleeper.wait()
    elif how == "last words":
        print("kernel 7: the cache is gone", file=sys.stderr, flush=True)
        os.abort()
    elif how == "segfault":
        ctypes.string_at(8)
    elif how in ("SIGILL", "SIGABRT", "SIGKILL"):
        os.kill(os.getpid(), signal.Signals[how])
    elif how == "exit":
        print("the licence has expired", file=sys.stderr, flush=True)
        os._exit(7)
    elif how == "print":
        os.write(1, b"INFO: created a delegate\n" * 3)
        print("and from Python, too")
    elif how == "flood":
        os.write(2, b"x" * 100 + b"\n")
        for _ in range(3000):
            os.write(2, b"warning: a very long line about kernels that nobody needs\n" * 20)
        raise RuntimeError("after the flood")


class MortalBackend(Backend):
    """A real backend that dies: option ``mortal`` is (the backend, when, how).

    When: ``open``, ``run`` or ``run_all``; how: as `misbehave` has it.
    """

    def __init__(self, path: str, options: Mapping[str, Any]) -> None:
        from deploykit.runners.child import open_backend

        where, self._when, self._how = options["mortal"]
        self._real = open_backend(where, path, {k: v for k, v in options.items() if k != "mortal"})
        self._die("open")

    def info(self) -> Mapping[str, Any]:
        return self._real.info()

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self._die("run")
        return self._real.run(inputs)

    def run_all(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self._die("run_all")
        return self._real.run_all(inputs)

    def _die(self, when: str) -> None:
        if when == self._when:
            print("kernel 7: the cache is gone", file=sys.stderr, flush=True)
            misbehave(self._how)


def mortal(definition: RunnerDefinition, when: str, how: str) -> RunnerDefinition:
    """A runner whose real backend dies."""
    options = {**definition.options, "mortal": [definition.backend, when, how]}
    return replace(definition, backend=f"{MODULE}:MortalBackend", options=options)
