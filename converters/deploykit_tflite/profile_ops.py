"""LiteRT's own profiler: what each operator took inside of one inference of a whole file.

The Python API has no way to it, the C library that it ships has; it is called through `ctypes`, in
a child process, since the C interface is not promised to stay (LiteRT 2.3 is what it was written
for): a change of it ends as a `RunnerError`. Times are read from the profiler's summary, a text, so
that no layout of a C structure is relied on but the tensor type's.

The operators are those of the kernel library: XNNPACK gives its own names, leaves out what it
fused, and may order branches anew.
"""

from __future__ import annotations

import ctypes
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploykit.child_process import run_child
from deploykit.cost.layer import ProfiledOp, ProfiledRun
from deploykit.errors import RunnerError
from deploykit.own_process import claim_process
from deploykit.temporary import scratch_folder

_MODULE = "deploykit_tflite.profile_ops"
_OPTIONS = b"enable_profiling = true\n"
_OPTIONS_NAME = b"runtime_options_string"
_CPU = 1
_WARM_UP_RUNS = 3
_MAX_RANK = 8
#: The runtime's numbers of element types.
_ELEMENT_TYPES = {"float32": 1, "int32": 2, "uint8": 3, "int64": 4, "int8": 9}
#: A row of the summary's first table: type, start, first, average, %, cumulative %, memory, calls.
_ROW = re.compile(
    r"^\s*(?P<type>\S.*?)\s+[\d.]+\s+[\d.]+\s+(?P<ms>[\d.]+)\s+[\d.]+%\s+[\d.]+%\s+[\d.]+\s+\d+\s+"
)


def profile_ops(data: bytes, *, runs: int, timeout_s: float) -> ProfiledRun:
    """Run a file ``runs`` times under LiteRT's profiler, at the runtime's default of threads.

    Raises:
        RunnerError: the runtime has no such profiler, refuses the file, crashes or takes too long.
    """
    with scratch_folder() as folder:
        path = folder / "model.tflite"
        path.write_bytes(data)
        request = json.dumps({"path": str(path), "runs": runs})
        try:
            done = run_child(["-m", _MODULE], input_bytes=request.encode(), timeout_s=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise RunnerError(f"LiteRT's profiler took longer than {timeout_s:g} s") from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["(it said nothing)"])[-1]
        raise RunnerError(
            f"LiteRT's profiler failed (exit {done.returncode}): {last}",
            expected="ai-edge-litert 2.3, whose C library has the profiler",
            advice="leave out --runtime-profiler: --measure alone does not need it",
        )
    answer = json.loads(done.stdout.splitlines()[-1])
    return ProfiledRun(
        runtime=f"LiteRT {answer['version']}, its own profiler",
        runs=runs,
        ops=tuple(ProfiledOp(name, us) for name, us in read_summary(answer["summary"])),
    )


def read_summary(text: str) -> list[tuple[str, float]]:
    """(Operator, average microseconds) in the order of execution, from the profiler's summary.

    The delegate itself has a row too, which holds the time of all its operators; it is omitted.

    Raises:
        RunnerError: the summary has no table that can be read.
    """
    found = []
    for line in text.partition("Run Order")[2].splitlines()[1:]:
        if "====" in line:
            break
        row = _ROW.match(line)
        if row is not None:
            found.append((row["type"], 1000 * float(row["ms"])))
    inside = [(name.removeprefix("Delegate/"), us) for name, us in found if "Delegate/" in name]
    outside = [(name, us) for name, us in found if "Delegate/" not in name]
    if not inside and not outside:
        raise RunnerError(
            "LiteRT's profiler gave a summary without operators",
            advice="leave out --runtime-profiler",
        )
    return inside or outside


class _Layout(ctypes.Structure):
    _fields_ = (
        ("rank", ctypes.c_uint, 7),
        ("has_strides", ctypes.c_uint, 1),
        ("dimensions", ctypes.c_int32 * _MAX_RANK),
        ("strides", ctypes.c_uint32 * _MAX_RANK),
    )


class _TensorType(ctypes.Structure):
    _fields_ = (("element_type", ctypes.c_int), ("layout", _Layout))


class _Library:
    """The C library; every call that does not give 0 raises."""

    def __init__(self) -> None:
        import ai_edge_litert

        folder = Path(ai_edge_litert.__file__).parent
        self._library = ctypes.CDLL(str(folder / "libLiteRt.so"))
        # Both are kept as long as the options that read them.
        self.options_text = ctypes.create_string_buffer(_OPTIONS)
        self.keep = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: None)

    def call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status != 0:
            raise RuntimeError(f"{name} gave status {status}")

    def make(self, name: str, *arguments: Any) -> ctypes.c_void_p:
        """A call whose last argument receives a handle."""
        handle = ctypes.c_void_p()
        self.call(name, *arguments, ctypes.byref(handle))
        return handle


def _compile(library: _Library, path: str) -> tuple[ctypes.c_void_p, ctypes.c_void_p]:
    environment = library.make("LiteRtCreateEnvironment", 0, None)
    options = library.make("LiteRtCreateOptions")
    library.call("LiteRtSetOptionsHardwareAccelerators", options, ctypes.c_int(_CPU))
    text = ctypes.cast(library.options_text, ctypes.c_void_p)
    profiling = library.make("LiteRtCreateOpaqueOptions", _OPTIONS_NAME, text, library.keep)
    library.call("LiteRtAddOpaqueOptions", options, profiling)
    model = library.make("LiteRtCreateModelFromFile", environment, path.encode())
    return environment, library.make("LiteRtCreateCompiledModel", environment, model, options)


def _buffers(
    library: _Library, handles: tuple[ctypes.c_void_p, ctypes.c_void_p], way: str, details: Any
) -> Any:
    environment, compiled = handles
    made = []
    for index, detail in enumerate(details):
        kind = _TensorType()
        kind.element_type = _ELEMENT_TYPES[detail["dtype"].__name__]
        kind.layout.rank = len(detail["shape"])
        for axis, length in enumerate(detail["shape"]):
            kind.layout.dimensions[axis] = int(length)
        requirements = library.make(
            f"LiteRtGetCompiledModel{way}BufferRequirements",
            *(compiled, ctypes.c_size_t(0), ctypes.c_size_t(index)),
        )
        made.append(
            library.make(
                "LiteRtCreateManagedTensorBufferFromRequirements",
                *(environment, ctypes.byref(kind), requirements),
            )
        )
    return (ctypes.c_void_p * len(made))(*made)


def _profile(request: dict[str, Any]) -> dict[str, Any]:
    from importlib.metadata import version

    from ai_edge_litert.interpreter import Interpreter

    plain = Interpreter(model_path=request["path"])
    library = _Library()
    handles = _compile(library, request["path"])
    compiled = handles[1]
    profiler = library.make("LiteRtCompiledModelGetProfiler", compiled)
    inputs = _buffers(library, handles, "Input", plain.get_input_details())
    outputs = _buffers(library, handles, "Output", plain.get_output_details())

    def run(times: int) -> None:
        ends: Sequence[Any] = (
            *(ctypes.c_size_t(len(inputs)), inputs, ctypes.c_size_t(len(outputs)), outputs),
        )
        for _ in range(times):
            library.call("LiteRtRunCompiledModel", compiled, ctypes.c_size_t(0), *ends)

    run(_WARM_UP_RUNS)
    library.call("LiteRtStartProfiler", profiler)
    run(int(request["runs"]))
    library.call("LiteRtStopProfiler", profiler)
    summary = library.make("LiteRtGetProfileSummary", profiler, compiled)
    text = ctypes.cast(summary, ctypes.c_char_p).value or b""
    return {"version": version("ai-edge-litert"), "summary": text.decode("utf-8", "replace")}


def main() -> None:
    """Answer one request."""
    claim_process()
    answer = _profile(json.loads(sys.stdin.read()))
    sys.stdout.write(f"\n{json.dumps(answer)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
