"""``python -m deploykit``, and the command ``deploykit``."""

import os
import signal
import sys

# -m puts the current folder first, in which a file such as numpy.py may lie beside the user's
# model. It stays where deploykit itself is imported from it.
if (
    __name__ == "__main__"
    and not sys.flags.safe_path
    and os.path.dirname(os.path.dirname(__file__)) != sys.path[0]  # noqa: PTH120
):
    del sys.path[0]


_INTERRUPTED = 130  # deploykit.errors has it, too: nothing is imported before the handlers


def main() -> int:
    """Run the command line; returns the exit code."""
    # While the rest is imported nothing has been done: leave without a traceback.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)

    from deploykit.cli import main as run

    code = run()
    if code == _INTERRUPTED:
        _end_at_once()
    return code


def _end_at_once() -> None:
    """End without taking the interpreter down, which takes seconds with torch in it."""
    import atexit
    import contextlib
    import threading

    last = threading.Timer(0.3, _leave)
    last.daemon = True
    last.start()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    with contextlib.suppress(BaseException):  # temporary folders are removed there
        atexit._run_exitfuncs()
    _leave()


def _leave(*_: object) -> None:
    os._exit(_INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
