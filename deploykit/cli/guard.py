"""The last guard: whatever happens in a command ends in an exit code and words, not in a traceback.

Errors raised on purpose have both. SIGINT and SIGTERM end a command within two seconds, also while
it imports or waits in native code. A refusal of the operating system is reported as one. Anything
else is a bug of ours: exit code 70, one line that says where, and ``--traceback`` shows the rest.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable

from deploykit.errors import EXIT_INTERNAL, EXIT_INTERRUPTED, EXIT_USER, DeploykitError
from deploykit.printable import printable_name, printable_text

#: How long an interrupted command may take to unwind, and remove its temporary files.
GRACE_S = 1.5

_INTERRUPTED = "interrupted: no result was written; what was there before stays"

# What the system refuses, rather than what we did wrong.
_REFUSALS = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENAMETOOLONG, errno.EACCES, errno.EPERM),
        *(errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ELOOP),
        *(errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.EAGAIN, errno.ETXTBSY, errno.ENXIO),
    }
)


def guarded(command: Callable[[], int], *, show_traceback: bool = False) -> int:
    """Run a command; returns its exit code, whatever it raises.

    Args:
        command: Gives its exit code.
        show_traceback: Print the traceback of what is a bug of ours.
    """
    with _Interrupts() as interrupts:
        try:
            interrupts.arm()
            code = command()
            interrupts.disarm()
            return code
        except KeyboardInterrupt:
            interrupts.disarm()
            return _interrupted()
        except Exception as error:
            interrupts.disarm()
            # A library may have turned the interrupt into a separate error.
            return _interrupted() if interrupts.seen else tell(error, show_traceback)


def tell(error: Exception, show_traceback: bool = False) -> int:
    """Print what an exception means; returns the exit code."""
    if isinstance(error, DeploykitError):
        _say(f"error: {error}")
        return error.exit_code
    if isinstance(error, OSError) and error.errno in _REFUSALS:
        name = printable_name(str(error.filename)) if error.filename else "a file"
        _say(f"error: cannot use {name}: {error.strerror or error}")
        return EXIT_USER
    if isinstance(error, MemoryError):
        _say(
            "error: there is not enough memory\n"
            "  what to do: close other programs, or take a smaller model or fewer samples"
        )
        return EXIT_USER
    return tell_bug(error, show_traceback)


def tell_bug(error: Exception, show_traceback: bool) -> int:
    """One line about a bug of ours: where, what, and whom to tell."""
    where = "".join(f" {note}" for note in getattr(error, "__notes__", ()))
    what = f"{type(error).__name__}: {error}".replace("\n", " ")
    if show_traceback:
        import traceback

        traceback.print_exception(error)
    _say(
        f"internal error{printable_name(where)}: {printable_name(what)} (a bug of deploykit: "
        "please report it to the project's issue tracker, with what --traceback shows)"
    )
    return EXIT_INTERNAL


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # nobody may be listening
        print(printable_text(text), file=sys.stderr)


def _interrupted() -> int:
    _say(_INTERRUPTED)
    return EXIT_INTERRUPTED


class _Interrupts:
    """SIGINT and SIGTERM raise KeyboardInterrupt, so that temporary files are removed.

    They do so between `arm` and `disarm` only; before, they are kept for `arm`. Native code that
    does not return, or code that swallows the interrupt, would go on: after `GRACE_S` the process
    ends without it.
    """

    def __init__(self) -> None:
        self.seen = False
        self._armed = False
        self._done = threading.Event()
        self._main = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> _Interrupts:
        if not self._main:  # signals are another's business
            return self
        reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        watch = threading.Thread(target=_end_after_grace, args=(reader, self._done), daemon=True)
        watch.start()
        # The byte is written as the signal arrives, whatever the main thread is busy with.
        self._descriptor = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._previous = {
            number: signal.signal(number, self._interrupt)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_: object) -> None:
        if not self._main:
            return
        self._done.set()
        signal.set_wakeup_fd(self._descriptor)
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        os.close(self._writer)

    def arm(self) -> None:
        self._armed = True
        if self.seen:
            raise KeyboardInterrupt

    def disarm(self) -> None:
        self._armed = False

    def _interrupt(self, *_: object) -> None:
        self.seen = True
        if self._armed:
            raise KeyboardInterrupt


def _end_after_grace(reader: int, done: threading.Event) -> None:
    try:
        while number := os.read(reader, 1):
            if number[0] in (signal.SIGINT, signal.SIGTERM) and not done.wait(GRACE_S):
                _say(_INTERRUPTED)
                os._exit(EXIT_INTERRUPTED)
    finally:
        os.close(reader)
