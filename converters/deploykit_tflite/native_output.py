"""What native code prints, for a backend that needs to read it."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def captured_output() -> Iterator[Callable[[], str]]:
    """Within it, what is written to standard output and error is given by the function yielded.

    By descriptor: native code knows nothing of Python's streams.
    """
    sys.stdout.flush()
    saved = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}
    with tempfile.TemporaryFile() as file:
        for descriptor in saved:
            os.dup2(file.fileno(), descriptor)
        try:
            yield lambda: _content(file.fileno())
        finally:
            sys.stdout.flush()
            for descriptor, copy in saved.items():
                os.dup2(copy, descriptor)
                os.close(copy)


def _content(descriptor: int) -> str:
    sys.stdout.flush()
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, size, 0).decode(errors="replace")
