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


def main() -> int:
    """Run the command line; returns the exit code."""
    # While the rest is imported nothing has been done: leave without a traceback.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)

    from deploykit.cli import main as run

    return run()


def _leave(*_: object) -> None:
    os._exit(130)


if __name__ == "__main__":
    sys.exit(main())
