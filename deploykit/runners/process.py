"""The parent's side of a runner: one child process, with a time limit on all that it does.

    with open_runner(RunnerSpec("onnxruntime", "model.onnx")) as runner:
        outputs = runner.run({"input": tensor})

Ctrl-C reaches the parent alone, which then ends the child (`deploykit.child_process`). A child
whose parent is gone sees its pipe close and leaves by itself.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

from deploykit.child_process import kill_child, start_child
from deploykit.errors import (
    ContractError,
    MissingDependencyError,
    RunnerCrashError,
    RunnerError,
    RunnerTimeoutError,
    UserError,
)
from deploykit.runners import foreign_child
from deploykit.runners.base import Runner, RunnerDefinition, RunnerInfo, RunnerSpec
from deploykit.runners.environments import python_of, why_not_made
from deploykit.runners.protocol import ByteStream, ProtocolError, read_message, write_message
from deploykit.runners.registry import find_runner
from deploykit.tensors import Array

_KEPT_STDERR_BYTES = 64 * 1024
_QUOTED_LINES = 12
_CRASH = "Fatal Python error: "
_GRACE_S = 5.0
_HINTS = {
    "SIGKILL": " (out of memory?)",
    "SIGILL": " (an instruction that this CPU does not have)",
}


class OutputsOnlyError(RunnerError):
    """The runtime cannot give intermediate values."""


def open_runner(spec: RunnerSpec, definition: RunnerDefinition | None = None) -> Runner:
    """Start a child process and load a model in it.

    Args:
        spec: Which runner, which file, options and time limit.
        definition: The runner, if it is not one of the registry's.

    Returns:
        A context manager; `Runner.close` ends the child.

    Raises:
        UserError: no runner has that name.
        ContractError: an option that the runner fixes to something else.
        MissingDependencyError: its package is not installed.
        RunnerError: the runtime refused the file, crashed, or took too long.
    """
    chosen = definition if definition is not None else find_runner(spec.runner)
    check_installed(chosen)
    return _ChildRunner(spec, chosen, _joined_options(spec, chosen))


def check_installed(definition: RunnerDefinition) -> None:
    """Refuse a runner whose package is not there; imports nothing.

    Raises:
        MissingDependencyError: with the command that installs it.
        UserError: its environment is not made.
    """
    if definition.environment is not None:
        if reason := why_not_made(definition.environment):
            what, _, command = reason.partition(": ")
            raise UserError(f"the runner {definition.name!r} cannot run: {what}", advice=command)
        return
    package = definition.requires.partition(".")[0]
    if not package or sys.modules.get(package) is not None:
        return
    if importlib.util.find_spec(package) is None:
        raise MissingDependencyError(
            package, needed_for=f"the runner {definition.name!r}", extra=definition.extra
        )


def _joined_options(spec: RunnerSpec, definition: RunnerDefinition) -> dict[str, Any]:
    for key, fixed in definition.options.items():
        if spec.options.get(key, fixed) != fixed:
            raise ContractError(
                f"runner {definition.name!r} was given {key}={spec.options[key]!r}",
                expected=f"{key}={fixed!r}, which is what makes it {definition.name!r}",
            )
    return {**spec.options, **definition.options}


class _ChildRunner(Runner):
    """A runner whose backend lives in a child process."""

    def __init__(
        self, spec: RunnerSpec, definition: RunnerDefinition, options: Mapping[str, Any]
    ) -> None:
        self._name = definition.name
        self._path = spec.path
        self._timeout_s = spec.timeout_s
        self._timed_out = threading.Event()
        self._ended = False
        self._process = _start_child(definition)
        self._errors = _StderrTail(cast("IO[bytes]", self._process.stderr))
        request = {
            "request": "open",
            "backend": definition.backend,
            "path": spec.path,
            "options": dict(options),
        }
        try:
            reply, _ = self._ask(request, {}, "opening")
            info = reply["info"]
            self._info = RunnerInfo(
                name=definition.name,
                runtime=str(info["runtime"]),
                version=str(info["version"]),
                kernels=str(info["kernels"]),
                cpu=str(info["cpu"]),
                threads=int(info["threads"]),
                details=dict(info["details"]),
            )
        except BaseException:
            self._end(kill=True)
            raise

    @property
    def info(self) -> RunnerInfo:
        """Exactly what runs."""
        return self._info

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `Runner.run`."""
        return self._ask({"request": "run"}, inputs, "running")[1]

    def run_all(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `Runner.run_all`."""
        return self._ask({"request": "run_all"}, inputs, "running")[1]

    def close(self) -> None:
        """End the child process; a second call does nothing."""
        self._end(kill=False)

    def _ask(
        self, request: Mapping[str, Any], arrays: Mapping[str, Array], doing: str
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        if self._ended:
            raise RunnerError(f"runner {self._name!r} has ended", advice="open it again")
        try:
            with self._time_limit():
                write_message(cast(ByteStream, self._process.stdin), request, arrays)
                message = read_message(cast(ByteStream, self._process.stdout))
        except (OSError, EOFError, ProtocolError) as error:
            raise self._failure(doing, error) from error
        except TypeError:
            raise  # an array that cannot be sent: nothing was written, the child is well
        except BaseException:
            self._end(kill=True)  # Ctrl-C: what the child answers now would answer nothing
            raise
        if message is None:
            raise self._failure(doing, None)
        reply, results = message
        if not reply["ok"]:
            raise self._refusal(doing, reply)
        return reply, results

    @contextlib.contextmanager
    def _time_limit(self) -> Iterator[None]:
        # A timer that kills works where a pipe cannot be polled; the read then sees its end.
        timer = threading.Timer(self._timeout_s, self._run_out_of_time)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _run_out_of_time(self) -> None:
        self._timed_out.set()
        self._kill()

    def _refusal(self, doing: str, reply: Mapping[str, Any]) -> RunnerError:
        if reply["outputs_only"]:
            return OutputsOnlyError(
                f"runner {self._name!r} gives outputs only: {reply['message']}",
                advice="take a runner that gives every value, e.g. one with reference kernels",
            )
        words = f"{reply['type']}: {reply['message']}"
        return RunnerError(
            f"runner {self._name!r} failed while {doing} {self._path}: {words}"
            f"{self._errors.quoted()}"
        )

    def _failure(self, doing: str, error: Exception | None) -> RunnerError:
        """The child is gone, or no longer makes sense: end it and say how it went."""
        if isinstance(error, ProtocolError):
            self._end(kill=True)
            return RunnerError(
                f"runner {self._name!r} answered out of turn while {doing} {self._path}: {error}"
                f"{self._errors.quoted()}"
            )
        code = self._end(kill=False)
        last_words = self._errors.quoted()
        if self._timed_out.is_set():
            return RunnerTimeoutError(
                f"runner {self._name!r} took longer than {self._timeout_s:g} s while {doing} "
                f"{self._path}, and was ended{last_words}",
                advice="give it more time (--timeout), or take another runner",
            )
        return RunnerCrashError(
            f"runner {self._name!r} {_ending(code)} while {doing} {self._path}{last_words}",
            advice="run the same file with another runner, or with other options",
        )

    def _end(self, *, kill: bool) -> int:
        """End the child, wait for it, close every pipe; its exit code."""
        if self._ended:
            return self._process.returncode
        self._ended = True
        if kill:
            self._kill()
        with contextlib.suppress(OSError):  # its end of the pipe may be gone already
            cast("IO[bytes]", self._process.stdin).close()
        try:
            code = self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._kill()
            code = self._process.wait()
        except BaseException:  # a second Ctrl-C: be quick
            self._kill()
            self._process.wait()
            raise
        finally:
            self._errors.finish()
            cast("IO[bytes]", self._process.stdout).close()
        return code

    def _kill(self) -> None:
        kill_child(self._process)


def _start_child(definition: RunnerDefinition) -> subprocess.Popen[bytes]:
    arguments, interpreter = ["-u", "-m", "deploykit.runners.child"], ""
    if definition.environment is not None:
        folders = json.dumps(_package_folders(definition))
        arguments = ["-u", str(Path(foreign_child.__file__).resolve()), folders]
        interpreter = str(python_of(definition.environment))
    return start_child(
        arguments,
        interpreter=interpreter,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _package_folders(definition: RunnerDefinition) -> dict[str, str]:
    """Where deploykit is, and the package that holds the backend."""
    backend = definition.backend.partition(":")[0].partition(".")[0]
    folders = {}
    for package in dict.fromkeys(("deploykit", backend)):
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ValueError(f"runner {definition.name!r}: there is no package {package!r}")
        folders[package] = str(spec.submodule_search_locations[0])
    return folders


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = _HINTS.get(name, "")
    return f"crashed with {name}{hint}"


def _last_words(lines: list[str]) -> list[str]:
    """The last lines; of a crash, what the runtime said before it, and where Python was then."""
    crash = next((i for i, line in enumerate(lines) if line.startswith(_CRASH)), None)
    if crash is None:
        return lines[-_QUOTED_LINES:]
    # faulthandler's dump is long, and lists other threads too: it must not push the words out.
    dump = lines[crash + 1 :]
    frames = next((i for i, line in enumerate(dump) if line.startswith("Current thread")), -1)
    half = _QUOTED_LINES // 2
    return [*lines[:crash][-half:], lines[crash], *dump[frames + 1 :][: half - 1]]


class _StderrTail:
    """Reads the child's standard error to its end, and keeps the last of it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._pump, daemon=True)
        self._thread.start()

    def _pump(self) -> None:
        while chunk := os.read(self._stream.fileno(), 1 << 14):
            with self._lock:
                self._chunks.append(chunk)
                self._size += len(chunk)
                while self._size - len(self._chunks[0]) >= _KEPT_STDERR_BYTES:
                    self._size -= len(self._chunks.popleft())

    def quoted(self) -> str:
        """The last lines, indented, for an error message; empty if there are none."""
        with self._lock:
            text = b"".join(self._chunks).decode(errors="replace")
        lines = [line for line in text.splitlines() if line.strip()]
        return "".join(f"\n    | {line}" for line in _last_words(lines))

    def finish(self) -> None:
        """Wait for the end of the stream and close it."""
        self._thread.join(_GRACE_S)
        if not self._thread.is_alive():  # else a process that the child started holds it open
            self._stream.close()
