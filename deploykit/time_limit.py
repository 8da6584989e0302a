"""A time limit around work of our own: a pass, quantizing, the writing of an artefact.

Such work is Python that may take any time on a file that was made for it. A timer thread raises in
the working thread when the time is up: no signal, so that it works in any thread, on any system,
and leaves the signals of whoever imports deploykit alone. It arrives between two instructions of
Python: a call into C that takes long is ended after it, and C++ that reads files is in a child
process with a limit of its own (`deploykit.graph.native`).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from deploykit.errors import UnsupportedModelError
from deploykit.limits import current_limits


class _OutOfTime(BaseException):
    """Raised in the working thread; nothing that catches `Exception` takes it for an error."""


@contextlib.contextmanager
def time_limit(what: str) -> Iterator[None]:
    """End the block when it takes longer than `Limits.stage_seconds`.

    Args:
        what: Names the work in the error, e.g. "the pass canonicalize".

    Raises:
        UnsupportedModelError: it took longer.
    """
    seconds = current_limits().stage_seconds
    mine: type[BaseException] = type(
        "_OutOfTime", (_OutOfTime,), {}
    )  # blocks may lie within each other
    watch = _Watch(seconds, mine)
    try:
        try:
            watch.start()
            yield
        finally:
            watch.stop()
    except mine:
        raise UnsupportedModelError(
            f"{what} took longer than {seconds} s on the model, and was ended",
            advice="--max stage_seconds=N gives it more time",
        ) from None


class _Watch:
    def __init__(self, seconds: int, kind: type[BaseException]) -> None:
        self._thread = threading.get_ident()
        self._kind = kind
        self._lock = threading.Lock()
        self._over = self._raised = False
        self._timer = threading.Timer(seconds, self._raise)
        self._timer.daemon = True
        self.start = self._timer.start

    def stop(self) -> None:
        self._timer.cancel()
        with self._lock:  # from here on nothing is raised any more
            self._over = True
            if self._raised:  # and what has not arrived yet never will
                _raise_in(self._thread, None)

    def _raise(self) -> None:
        with self._lock:
            if not self._over:
                self._raised = True
                _raise_in(self._thread, self._kind)


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    import ctypes

    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), None if kind is None else ctypes.py_object(kind)
    )
