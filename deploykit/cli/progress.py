"""Progress lines on standard error; on a terminal the last one is alive, with the time it takes.

A stage may take half a minute in one library call. A thread rewrites one line below the finished
ones: what is being done, how many stages are done, seconds since the start. Elsewhere (a file, a
pipe) only the finished lines are printed, as ever.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

_INTERVAL_S = 0.5
_ERASE = "\r\x1b[K"


class LiveLine:
    """The line that is rewritten until the next stage is done.

    Args:
        stream: A terminal.
        clock: Seconds, monotonic.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._start = clock()
        self._lock = threading.Lock()
        self._done = 0

    def say(self, line: str) -> None:
        """A finished stage: its line stays."""
        with self._lock:
            self._done += 1
            self._control(_ERASE)
            self._stream.write(f"  {line}\n")
            self._show()

    def draw(self) -> None:
        """Write the live line again."""
        with self._lock:
            self._control(_ERASE)
            self._show()

    def erase(self) -> None:
        """Leave nothing behind but the finished lines."""
        with self._lock:
            self._control(_ERASE)
            self._stream.flush()

    def _show(self) -> None:
        self._stream.write(self._text())
        self._control("\r")  # what another one prints begins at the left
        self._stream.flush()

    def _control(self, sequence: str) -> None:
        """Ours: `deploykit.cli.streams` escapes all others."""
        getattr(self._stream, "control", self._stream.write)(sequence)

    def _text(self) -> str:
        elapsed = self._clock() - self._start
        words = f"  ... {elapsed:.0f} s, {self._done} steps done"
        return words[: shutil.get_terminal_size().columns - 1]


@contextmanager
def shown_progress(*, quiet: bool, stream: TextIO | None = None) -> Iterator[Callable[[str], None]]:
    """What a library function is given as ``progress``.

    Args:
        quiet: Whether nothing is shown.
        stream: Where; None for standard error.
    """
    out = stream or sys.stderr
    if quiet:
        yield lambda _: None
        return
    if not out.isatty():
        yield lambda line: print(f"  {line}", file=out, flush=True)
        return
    live, ended = LiveLine(out), threading.Event()

    def draw() -> None:
        while not ended.wait(_INTERVAL_S):
            live.draw()

    thread = threading.Thread(target=draw, daemon=True)
    thread.start()
    try:
        yield live.say
    finally:
        ended.set()
        thread.join()
        live.erase()
