"""ONNX's and onnxsim's C++ code, called in a child process.

Both crash on some files (a Split without outputs is enough for the version converter), and a crash
in our process would end it without a word. So they are called in a child that is started once, in
some 20 ms, and serves every call of this process; its death is an error that says so, and the next
call starts another. What travels are serialized models without their weights
(`deploykit.graph.skeleton`), so the copies are small.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.machinery
import importlib.util
import marshal
import os
import signal
import subprocess
import tempfile
import threading
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, cast

from deploykit.child_process import importable_folders, start_child
from deploykit.errors import MissingDependencyError, UnsupportedModelError, UserError
from deploykit.graph import native_child
from deploykit.graph.native_child import DONE, LENGTH_BYTES, NO_MEMORY, UNKNOWN
from deploykit.limits import current_limits
from deploykit.printable import last_line

_ONNX = "onnx_cpp2py_export"
_ONNXSIM = "onnxsim_cpp2py_export"
_MEMORY_FACTOR = 16
#: What importing onnxsim's Python package may take beyond that, bytes.
_PUBLIC_MEMORY = 2 << 30
_SIMPLIFY_PARAMETERS = (
    "executor",
    "model_bytes",
    "skip_optimizers",
    "constant_folding",
    "shape_inference",
    "tensor_size_threshold",
    "target_opset_version",
    "rewriter",
    "initializers_as_constants",
    "include_inline_functions",
    "mutable_initializer",
    "overwrite_input_shapes",
    "unused_output",
    "extra_optimizers",
)


class RefusedError(Exception):
    """The C++ code raised; the caller says what that means.

    Attributes:
        kind: Name of the exception's class, e.g. ``InferenceError``.
    """

    def __init__(self, kind: str, words: str) -> None:
        super().__init__(words)
        self.kind = kind


def convert_version(model: bytes, opset: int) -> bytes:
    """`onnx.version_converter.convert_version` of a serialized ``ModelProto``.

    Raises:
        RefusedError: the converter raised.
        UnsupportedModelError: it crashed, or took more time or memory than `Limits` allow.
    """
    return _call("ONNX's version converter", "version_converter.convert_version", model, opset)


def infer_shapes(model: bytes, *, strict: bool = False) -> bytes:
    """`onnx.shape_inference.infer_shapes` with data propagation; raises as `convert_version`."""
    what = "ONNX's shape inference"
    return _call(what, "shape_inference.infer_shapes", model, False, strict, True)


def inline_functions(model: bytes) -> bytes:
    """`onnx.inliner.inline_local_functions`; raises as `convert_version`."""
    return _call("ONNX's inliner", "inliner.inline_local_functions", model, False)


def simplify(model: bytes, arguments: Mapping[str, Any]) -> bytes:
    """onnxsim's ``simplify``; of a version that we do not know, the package's public function.

    That one imports much (torch, where it is installed), and a warning says so.

    Args:
        model: A serialized ``ModelProto``.
        arguments: All of its parameters but the executor and the model.

    Raises:
        RefusedError: onnxsim raised.
        MissingDependencyError: it is not installed.
        UnsupportedModelError: as `convert_version`.
    """
    request: dict[str, Any] = {
        "call": "simplify",
        "name": f"onnxsim.{_ONNXSIM}",
        "file": find_extension("onnxsim", _ONNXSIM),
        "interface": _SIMPLIFY_PARAMETERS,
        "arguments": dict(arguments),
        # ONNX Runtime is imported there if constant subgraphs are left: from where we import.
        "path": importable_folders(),
    }
    if request["file"] is not None:
        answer = _CHILD.ask("onnxsim", request, model)
        if answer != UNKNOWN:
            return answer
    warnings.warn(
        f"onnxsim {version('onnxsim')} is none that deploykit knows, so that its public function "
        "is called, which is slower; pip install 'onnxsim>=0.8,<0.9'",
        stacklevel=2,
    )
    _CHILD.close()  # a process cannot raise its own limit
    request |= {"file": None, "extra_memory": _PUBLIC_MEMORY}
    simplified = _CHILD.ask("onnxsim", request, model)
    _CHILD.close()
    # A version whose function has no target_opset_version leaves the operator set as it was.
    opset = arguments["target_opset_version"]
    return simplified if opset_of(simplified) == opset else convert_version(simplified, opset)


def why_invalid(model: bytes) -> str:
    """Why ONNX's strict shape inference or ONNX Runtime refuse a model; empty if they do not.

    It tells a model that contradicts itself from a bug of ours, where a pass has raised.
    """
    try:
        infer_shapes(model, strict=True)
        _CHILD.ask("ONNX Runtime", _session_request("open"), model)
    except RefusedError as error:
        return str(error).splitlines()[-1].strip()
    except UnsupportedModelError as error:
        return error.found
    return ""


def try_model(model: bytes) -> None:
    """Run a model once on zeros with ONNX Runtime, in the child.

    What makes ONNX Runtime crash there would end our process.

    Args:
        model: A serialized ``ModelProto`` whose inputs have static shapes.

    Raises:
        UnsupportedModelError: it crashes, hangs, takes too much memory, or is refused.
    """
    request = _session_request("run") | {"extra_memory": current_limits().activation_bytes}
    try:
        _CHILD.ask("ONNX Runtime", request, model)
    except RefusedError as error:
        raise UnsupportedModelError(
            f"ONNX Runtime cannot run the model: {last_line(error)}",
            advice="check the file with onnx.checker, or export it again",
        ) from error


def _session_request(call: str) -> dict[str, Any]:
    return {
        "call": call,
        "name": f"onnx.{_ONNX}",
        "file": extension_file("onnx", _ONNX),
        "path": importable_folders(),
    }


def _call(what: str, call: str, model: bytes, *arguments: object) -> bytes:
    request = {
        "call": call,
        "name": f"onnx.{_ONNX}",
        "file": extension_file("onnx", _ONNX),
        "arguments": arguments,
    }
    return _CHILD.ask(what, request, model)


@functools.cache
def extension_file(package: str, extension: str) -> str:
    """The path of a package's compiled extension; imports nothing.

    Raises:
        MissingDependencyError: the package is not installed.
        UserError: it has no such extension for this interpreter.
    """
    if file := find_extension(package, extension):
        return file
    raise UserError(
        f"the installed {package} has no compiled extension {extension}.*",
        expected="a wheel for this interpreter",
        advice=f"reinstall it: pip install --force-reinstall {package}",
    )


def opset_of(model: bytes) -> int:
    """The version of the standard operator set of a serialized ``ModelProto``."""
    import onnx

    imports = onnx.load_model_from_string(model).opset_import
    return next((int(o.version) for o in imports if o.domain in ("", "ai.onnx")), 0)


@functools.cache
def find_extension(package: str, extension: str) -> str | None:
    """The path of a package's compiled extension; None if it has none of that name.

    Raises:
        MissingDependencyError: the package is not installed.
    """
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec is not None else None
    if not folders:
        raise MissingDependencyError(package, needed_for="simplifying a model", extra="all")
    for folder in folders:
        for suffix in importlib.machinery.EXTENSION_SUFFIXES:
            file = Path(folder) / f"{extension}{suffix}"
            if file.is_file():
                return str(file)
    return None


class _Child:
    """The process, started at the first call; calls of several threads take turns."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._words: IO[bytes] | None = None
        self._timed_out = False

    def ask(self, what: str, request: Mapping[str, Any], model: bytes) -> bytes:
        """The child's answer; see `convert_version` for what is raised."""
        limits = current_limits()
        memory = limits.native_bytes + _MEMORY_FACTOR * len(model) + request.get("extra_memory", 0)
        data = marshal.dumps({**request, "model": model, "memory": memory})
        with self._lock:
            process = self._started()
            self._timed_out = False
            timer = threading.Timer(limits.native_seconds, self._run_out_of_time, (process,))
            timer.daemon = True
            timer.start()
            try:
                status, result = _exchange(process, data)
            except (OSError, EOFError) as error:
                raise self._death(what, limits.native_seconds) from error
            except BaseException:
                self.close()  # Ctrl-C: what it answers now would answer nothing
                raise
            finally:
                timer.cancel()
        if status == DONE:
            return result
        if status == NO_MEMORY:
            raise UnsupportedModelError(
                f"{what} ran out of memory on the model",
                expected=f"at most {memory >> 20:,} MiB",
                advice="check the shapes in the file; --max native_bytes=SIZE allows more",
            )
        kind, _, words = result.decode(errors="replace").partition("\n")
        raise RefusedError(kind, words.strip() or kind)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._owner != os.getpid():  # a fork has a copy of the pipes, which are not its own
            self._process, self._owner = None, os.getpid()
        if self._process is None or self._process.poll() is not None:
            self._words = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
            self._process = start_child(
                ["-S", str(Path(native_child.__file__).resolve())],
                isolated=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._words,
            )
        return self._process

    def _run_out_of_time(self, process: subprocess.Popen[bytes]) -> None:
        self._timed_out = True
        with contextlib.suppress(OSError):
            process.kill()

    def _death(self, what: str, seconds: int) -> UnsupportedModelError:
        assert self._words is not None
        self._words.seek(0)
        words = self._words.read()[-2000:].decode(errors="replace").strip()
        code = self.close()
        if self._timed_out:
            return UnsupportedModelError(
                f"{what} took longer than {seconds} s on the model, and was ended",
                advice="--max native_seconds=N gives it more time",
            )
        ending = f"exit code {code}"
        if code < 0:
            with contextlib.suppress(ValueError):
                ending = signal.Signals(-code).name
        last = "".join(f"\n    | {line}" for line in words.splitlines()[-4:])
        return UnsupportedModelError(
            f"{what} crashed with {ending} on the model{last}",
            advice="the file is damaged or of an odd form: check it with onnx.checker, or export "
            "it again",
        )

    def close(self) -> int:
        """End the process, if one runs; its exit code."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return 0
        for stream in (process.stdin, process.stdout, self._words):
            with contextlib.suppress(OSError):
                cast("IO[bytes]", stream).close()
        try:
            return process.wait(0.5)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def _exchange(process: subprocess.Popen[bytes], data: bytes) -> tuple[bytes, bytes]:
    requests, replies = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)
    view = memoryview(len(data).to_bytes(LENGTH_BYTES, "little") + data)
    while view.nbytes:
        view = view[requests.write(view) :]
    head = _read_exactly(replies, 1 + LENGTH_BYTES)
    return head[:1], _read_exactly(replies, int.from_bytes(head[1:], "little"))


def _read_exactly(stream: IO[bytes], count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        chunk = stream.read(count - len(data))
        if not chunk:
            raise EOFError("the child is gone")
        data += chunk
    return bytes(data)


_CHILD = _Child()
atexit.register(_CHILD.close)
