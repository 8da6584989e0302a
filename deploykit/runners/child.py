"""The child's side of a runner: loads one backend and answers the parent until it hangs up.

Started as ``python -m deploykit.runners.child`` by `deploykit.runners.process`; reads requests
from what was its standard input and writes replies to what was its standard output. Both are moved
to other descriptors first, because native runtimes print to descriptor 1: whatever they print ends
up in standard error, which the parent keeps.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from deploykit.own_process import claim_process
from deploykit.runners.base import Backend
from deploykit.runners.cpu import describe_cpu
from deploykit.runners.protocol import read_message, write_message
from deploykit.tensors import Array

_AT_LEAVING: list[Callable[[], None]] = []
Request = tuple[dict[str, Any], dict[str, Array]]


def main() -> None:
    """Answer requests until the parent closes the pipe."""
    claim_process()
    requests, replies = _take_protocol_streams()
    faulthandler.enable()  # a crash in native code leaves its Python stack in standard error
    waiting: queue.SimpleQueue[Request] = queue.SimpleQueue()
    # A separate thread reads, so that the end of the parent is seen while a run goes on.
    threading.Thread(target=_read_requests, args=(requests, waiting), daemon=True).start()
    backend: Backend | None = None
    while True:
        header, arrays = waiting.get()
        results: dict[str, Array] = {}
        try:
            if header["request"] == "open":
                _prepare(header["backend"], header["path"], header["options"])
                backend = open_backend(header["backend"], header["path"], header["options"])
                reply = {"ok": True, "info": {**backend.info(), "cpu": describe_cpu()}}
            else:
                results = _run(backend, header["request"], arrays)
                reply = {"ok": True}
        except Exception as error:  # whatever a backend raises is the parent's to tell
            reply, results = _describe(error), {}
        _reply(replies, reply, results)


def _reply(stream: io.FileIO, reply: Mapping[str, Any], results: Mapping[str, Array]) -> None:
    try:
        write_message(stream, reply, results)
    except (TypeError, ValueError) as error:
        # What the backend gave cannot be sent; nothing has been written yet.
        write_message(stream, _describe(error), {})
    except BrokenPipeError:
        _leave(1)


def open_backend(where: str, path: str, options: Mapping[str, Any]) -> Backend:
    """Import ``package.module:Class`` and open the file with it.

    Raises:
        TypeError: the class is no `Backend`.
        Exception: whatever the backend raises.
    """
    module, _, name = where.partition(":")
    backend = getattr(import_module(module), name)(path, options)
    if not isinstance(backend, Backend):
        raise TypeError(f"{where} is not a deploykit Backend")
    return backend


def _prepare(where: str, path: str, options: Mapping[str, Any]) -> None:
    module, _, name = where.partition(":")
    prepare = getattr(getattr(import_module(module), name), "prepare_process", None)
    if prepare is not None:
        _AT_LEAVING.append(prepare(path, options))


def _run(backend: Backend | None, request: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
    if backend is None:
        raise RuntimeError("a run before the model was opened")
    return backend.run_all(inputs) if request == "run_all" else backend.run(inputs)


def _describe(error: BaseException) -> dict[str, Any]:
    return {
        "ok": False,
        "type": type(error).__name__,
        "message": str(error),
        "outputs_only": type(error) is LookupError,
        "traceback": "".join(traceback.format_exception(error)),
    }


def _take_protocol_streams() -> tuple[io.FileIO, io.FileIO]:
    """Move standard input and output away; put nothing and standard error in their place."""
    sys.stdout.flush()
    requests = io.FileIO(os.dup(0), "rb")
    replies = io.FileIO(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, replies


def _read_requests(stream: io.FileIO, waiting: queue.SimpleQueue[Request]) -> None:
    try:
        while (message := read_message(stream)) is not None:
            waiting.put(message)
    except BaseException:
        traceback.print_exc()
        _leave(1)
    # The parent is gone or done. Native runtimes may hang or crash in their destructors, and a
    # run may still be going on: leave without either.
    _leave(0)


def _leave(code: int) -> None:
    # From the thread that reads, which was there before the process was confined.
    for clean_up in _AT_LEAVING:
        with contextlib.suppress(Exception):
            clean_up()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
