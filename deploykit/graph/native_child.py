"""The child's side of `deploykit.graph.native`: calls ONNX's and onnxsim's C++ code on bytes.

Run as a script by an isolated interpreter without site-packages, it imports nothing but the
compiled extensions that it is asked for, by their paths: it starts in some 20 ms. It needs no
package of deploykit. A request is a marshalled dictionary behind its length; a reply is one byte
that says how it went, the length, and the result or the words of the error.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import io
import marshal
import os
import sys
from types import ModuleType
from typing import Any

DONE = b"D"
REFUSED = b"R"
NO_MEMORY = b"M"
LENGTH_BYTES = 8

#: What `simplify` answers where the extension is not the one that is known; a model is longer.
UNKNOWN = b"?"


def main() -> None:
    """Answer requests until the parent closes the pipe."""
    requests, replies = io.FileIO(os.dup(0), "rb"), io.FileIO(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever native code prints is no reply
    while (data := _read_framed(requests)) is not None:
        try:
            status, result = DONE, _answer(marshal.loads(data))
        except MemoryError:
            status, result = NO_MEMORY, b""
        except Exception as error:
            status = NO_MEMORY if "bad_alloc" in str(error) else REFUSED
            result = f"{type(error).__name__}\n{error}".encode(errors="replace")
        _write_framed(replies, status, result)


def _read_framed(stream: io.FileIO) -> bytes | None:
    prefix = _read_exactly(stream, LENGTH_BYTES)
    return None if prefix is None else _read_exactly(stream, int.from_bytes(prefix, "little"))


def _read_exactly(stream: io.FileIO, count: int) -> bytes | None:
    data = bytearray()
    while len(data) < count:
        chunk = stream.read(count - len(data))
        if not chunk:
            return None
        data += chunk
    return bytes(data)


def _write_framed(stream: io.FileIO, status: bytes, result: bytes) -> None:
    view = memoryview(status + len(result).to_bytes(LENGTH_BYTES, "little") + result)
    while view.nbytes:
        view = view[stream.write(view) or 0 :]


def _answer(request: dict[str, Any]) -> bytes:
    _limit_memory(request["memory"])
    call, model = request["call"], request["model"]
    if call == "simplify" and request["file"] is None:
        return _simplify_publicly(model, request)
    extension = _load(request["name"], request["file"])
    if call == "simplify":
        return _simplify(extension, model, request)
    if call in ("open", "run"):
        sys.path[:] = request["path"]
        session = open_session(model)
        if call == "run":
            _run_on_zeros(session)
        return b""
    module, function = call.split(".")
    result = getattr(getattr(extension, module), function)(model, *request["arguments"])
    return bytes(result)


def _limit_memory(limit: int) -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return
    kind = getattr(resource, "RLIMIT_DATA", resource.RLIMIT_AS)
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (limit if hard < 0 else min(limit, hard), hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _load(name: str, file: str) -> ModuleType:
    loaded = sys.modules.get(name)
    if loaded is None:
        loader = importlib.machinery.ExtensionFileLoader(name, file)
        spec = importlib.util.spec_from_file_location(name, file, loader=loader)
        assert spec is not None
        loaded = importlib.util.module_from_spec(spec)
        loader.exec_module(loaded)
        # A second copy in one process does not work: whoever imports it later gets this one.
        sys.modules[name] = loaded
    return loaded


def _simplify(extension: ModuleType, model: bytes, request: dict[str, Any]) -> bytes:
    class Executor(extension.ModelExecutor):  # type: ignore[name-defined, misc]
        """Runs the constant subgraphs that onnxsim finds."""

        def Run(self, model_bytes: bytes, inputs: list[bytes]) -> list[bytes]:  # noqa: N802 - onnxsim calls it by this name
            sys.path[:] = request["path"]
            return run_constant_graph(model_bytes, inputs)

    if interface_of(extension) != request["interface"]:
        return UNKNOWN
    return bytes(extension.simplify(executor=Executor(), model_bytes=model, **request["arguments"]))


def _simplify_publicly(model: bytes, request: dict[str, Any]) -> bytes:
    """By the package's own function, which imports much, with the parameters that it has."""
    import inspect

    sys.path[:] = request["path"]
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]  # which it imports if it can
    import onnx
    import onnxsim

    wanted = {
        "skipped_optimizers": request["arguments"]["skip_optimizers"],
        "tensor_size_threshold": f"{request['arguments']['tensor_size_threshold'] / 1000:.3f}KB",
        "target_opset_version": request["arguments"]["target_opset_version"],
    }
    known = inspect.signature(onnxsim.simplify).parameters
    options = {name: value for name, value in wanted.items() if name in known}
    simplified, checked = onnxsim.simplify(onnx.load_model_from_string(model), **options)
    if not checked:
        raise ValueError("onnxsim's own check failed: its result gives other numbers")
    return bytes(simplified.SerializeToString())


def interface_of(extension: ModuleType) -> tuple[str, ...]:
    """The names of the parameters of an extension's ``simplify``; empty if it has none."""
    signature = str(getattr(getattr(extension, "simplify", None), "__doc__", None) or "")
    inside = signature.partition("(")[2].rpartition(") ->")[0]
    if not hasattr(extension, "ModelExecutor"):
        return ()
    return tuple(part.partition(":")[0].strip() for part in _split_parameters(inside))


def _split_parameters(text: str) -> list[str]:
    # Type annotations hold commas in brackets.
    parts, depth, start = [], 0, 0
    for index, letter in enumerate(text):
        depth += (letter in "[(") - (letter in "])")
        if letter == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    return [*parts, text[start:]] if text.strip() else []


def open_session(model_bytes: bytes) -> Any:
    """An ONNX Runtime session of a model, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model_bytes, options, providers=["CPUExecutionProvider"])


def _run_on_zeros(session: Any) -> None:
    import numpy as np

    types = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}
    feed = {
        spec.name: np.zeros(spec.shape, types.get(spec.type, spec.type[7:-1]))
        for spec in session.get_inputs()
    }
    session.run(None, feed)


def run_constant_graph(model_bytes: bytes, inputs: list[bytes]) -> list[bytes]:
    """Run a small model once with ONNX Runtime, on one thread.

    Args:
        model_bytes: A serialized ``ModelProto``.
        inputs: A serialized ``TensorProto`` for each of its inputs, in order.

    Returns:
        A serialized ``TensorProto`` for each of its outputs.
    """
    import onnx

    session = open_session(model_bytes)
    feed = {
        spec.name: onnx.numpy_helper.to_array(onnx.TensorProto.FromString(data))
        for spec, data in zip(session.get_inputs(), inputs, strict=True)
    }
    results = session.run(None, feed)
    return [onnx.numpy_helper.from_array(array).SerializeToString() for array in results]


if __name__ == "__main__":
    main()
