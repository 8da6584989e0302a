"""The exporters of torch without their noise, and the few lines of an error that count."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No printing, warnings or log lines from the exporter, and one thread while it runs.

    Capturing runs on fake tensors: more threads only spin (CPU seconds count them all).
    """
    import torch

    threads = torch.get_num_threads()
    level = logging.root.manager.disable
    torch.set_num_threads(1)
    logging.disable(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        torch.set_num_threads(threads)


def first_lines(error: BaseException) -> str:
    """The first two lines of an error that say something, at most 400 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[:2]) or type(error).__name__
    return text if len(text) <= 400 else text[:400] + "..."
