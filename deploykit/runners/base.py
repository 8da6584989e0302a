"""What a runner is: a runtime with a model loaded, in a separate process.

    with open_runner(RunnerSpec("litert", path)) as runner:
        outputs = runner.run({"input": batch_of_one})

A *backend* is the code that drives one runtime; it lives in the child process
(`deploykit.runners.child`) and is found by its `RunnerDefinition`. A *runner* is the parent's side
of it. A runtime that crashes or hangs becomes a `RunnerError`, not our crash.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from deploykit.runners.environments import Environment
from deploykit.tensors import Array


@dataclass(frozen=True)
class RunnerDefinition:
    """A runtime that deploykit can drive.

    Attributes:
        name: E.g. ``litert-reference``.
        backend: ``package.module:Class`` of the `Backend`, imported in the child process only.
        requires: The package that must be installed, by its import name.
        extra: The extra of deploykit that installs it.
        runs: What it runs: ``onnx`` (a stage), ``source``, or a target's name.
        description: One line: runtime and kernel set.
        options: Fixed options that the backend is opened with.
        probe: ``package.module:function`` that says in words why the runtime cannot run on this
            machine (no such system, no driver), empty if it can; empty for one that runs wherever
            its package is. It must be quick.
        on_request: Whether it verifies only where the user names it: a setting that is worth
            measuring, and whose figures the usual limits are not for.
        suffix: Of the file beside the artefact that it runs in the artefact's place, e.g. ``.ort``:
            it verifies those artefacts that have one. Empty for the artefact itself.
        environment: The environment of its own that the child process runs in; None for the one
            that deploykit is installed in. ``requires`` is empty then.
        limits: Its own limits, as ``--limit`` takes them, where it computes less exactly than
            the usual ones expect; what the user gives comes after them, and wins.
        samples: At most so many golden inputs are run; None for all.
    """

    name: str
    backend: str
    requires: str
    extra: str
    runs: str
    description: str
    options: Mapping[str, Any] = field(default_factory=dict)
    probe: str = ""
    on_request: bool = False
    suffix: str = ""
    environment: Environment | None = None
    limits: tuple[str, ...] = ()
    samples: int | None = None

    def file_to_run(self, path: str, files: Iterable[str]) -> str:
        """What it is given of an artefact: a path in the bundle; empty if it runs none of it.

        Args:
            path: The artefact's path in the bundle.
            files: The paths of all its files.
        """
        if not self.suffix:
            return path
        companion = str(PurePosixPath(path).with_suffix(self.suffix))
        return companion if companion in set(files) else ""


@dataclass(frozen=True)
class RunnerSpec:
    """What to open: which runner, on which file, how.

    Attributes:
        runner: Name of a `RunnerDefinition`.
        path: The file to load.
        options: Plain data for the backend, e.g. ``{"threads": 2}``.
        timeout_s: Seconds that opening, and each run, may take.
    """

    runner: str
    path: str
    options: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float = 120.0


@dataclass(frozen=True)
class RunnerInfo:
    """What a verdict names: exactly what ran.

    Attributes:
        name: The runner's name.
        runtime: E.g. ``LiteRT``.
        version: The runtime's version.
        kernels: E.g. ``XNNPACK``, ``reference``, ``CPUExecutionProvider``.
        cpu: Architecture and the features that kernels are chosen by, e.g. ``x86_64 avx2 fma``.
        threads: Number of threads that it was given.
        details: Anything else that decides the result, e.g. ``{"partitions": 1}``.
    """

    name: str
    runtime: str
    version: str
    kernels: str
    cpu: str
    threads: int
    details: Mapping[str, Any] = field(default_factory=dict)


class Backend(ABC):
    """Drives one runtime inside the child process.

    Constructed as ``Backend(path, options)``: loads the model, or raises with the runtime's own
    words. Inputs and outputs are in the runtime's own shapes and dtypes.
    """

    @classmethod
    def prepare_process(cls, path: str, options: Mapping[str, Any]) -> Callable[[], None]:
        """Called once in the child process, before anything is loaded: it may confine itself.

        Args:
            path: The file that will be loaded.
            options: Of the backend.

        Returns:
            What is called when the process leaves.
        """
        return lambda: None

    @abstractmethod
    def info(self) -> Mapping[str, Any]:
        """``runtime``, ``version``, ``kernels``, ``threads``, ``details`` of `RunnerInfo`."""

    @abstractmethod
    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run once; every output by name."""

    def run_all(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run once; every value that the runtime can give, by name.

        Raises:
            LookupError: the runtime cannot give intermediate values.
        """
        raise LookupError(f"{type(self).__name__} gives outputs only")


class Runner(ABC):
    """A context manager with a model loaded in a runtime; see the module's docstring."""

    @property
    @abstractmethod
    def info(self) -> RunnerInfo:
        """Exactly what runs."""

    @abstractmethod
    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run once.

        Args:
            inputs: Name → array, in the shapes and dtypes of the loaded file (`TensorSpec.encode`
                makes them).

        Returns:
            Name → array for every output.

        Raises:
            RunnerError: the runtime refused, crashed, or took too long.
        """

    @abstractmethod
    def run_all(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run once and return every named value that the runtime can give.

        Raises:
            RunnerError: as `run`; also where the runtime gives outputs only.
        """

    @abstractmethod
    def close(self) -> None:
        """End the child process."""

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
