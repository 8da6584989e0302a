"""Standard output and standard error, made fit for whatever is printed and whoever reads.

A name may hold characters that the terminal's encoding lacks or that would steer it; the reader may
go away (``deploykit ... | head -1``), the disk behind it may be full, or there may be none at all.
None of that may end a conversion half-way: what cannot be written is dropped, and `failure_of`
says so at the end.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TYPE_CHECKING, cast

from deploykit.printable import escape_controls

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Descriptor(io.RawIOBase):
    """Writes to a descriptor until that fails once; then it swallows all."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self.failure: OSError | None = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: ReadableBuffer, /) -> int:
        view = memoryview(data)
        if self.failure is None:
            try:
                return os.write(self._descriptor, view)
            except OSError as error:
                self.failure = error
        return view.nbytes


class _Stream(io.TextIOWrapper):
    """Escapes control characters, and what the encoding lacks, as JSON does."""

    def write(self, text: str, /) -> int:
        shown = escape_controls(text)
        try:
            shown.encode(self.encoding)
        except UnicodeEncodeError:
            shown = "".join(c if c.isascii() else _as_json(c) for c in shown)
        super().write(shown)
        return len(text)

    def control(self, sequence: str, /) -> None:
        """Steer the terminal: for constants of ours, never for text that came in."""
        super().write(sequence)


def prepare_streams() -> None:
    """Replace ``sys.stdout`` and ``sys.stderr`` of this process."""
    for descriptor in (0, 1, 2):  # a closed one would be given to the next file that is opened
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = _opened(sys.stdout, 1)
    sys.stderr = _opened(sys.stderr, 2)


def failure_of_stdout() -> OSError | None:
    """Why standard output was not written, after a flush; None also if its reader went away."""
    with contextlib.suppress(ValueError, OSError):
        sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    failure = raw.failure if isinstance(raw, _Descriptor) else None
    return None if isinstance(failure, BrokenPipeError) else failure


def _opened(stream: object, descriptor: int) -> io.TextIOWrapper:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    raw = _Descriptor(descriptor)
    return _Stream(
        io.BufferedWriter(cast(io.RawIOBase, raw)),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=descriptor == 2 or raw.isatty(),
    )


def _as_json(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
