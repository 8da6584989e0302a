"""Progress on a terminal and elsewhere."""

from __future__ import annotations

import io

import pytest

from deploykit.cli.progress import LiveLine, shown_progress


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _screen(text: str) -> list[str]:
    """What is seen in the end: each line after its last erasure."""
    return [line.rpartition("\x1b[K")[2].rstrip("\r") for line in text.split("\n")]


def test_the_live_line_has_the_elapsed_time_and_the_count() -> None:
    times = iter([0.0, 3.0, 12.4])
    terminal = _Terminal()
    live = LiveLine(terminal, lambda: next(times))
    live.say("loaded")
    assert _screen(terminal.getvalue()) == ["  loaded", "  ... 3 s, 1 steps done"]
    live.draw()
    assert _screen(terminal.getvalue()) == ["  loaded", "  ... 12 s, 1 steps done"]
    live.erase()
    assert _screen(terminal.getvalue()) == ["  loaded", ""]


def test_finished_lines_stay_on_a_terminal_also_after_an_error() -> None:
    terminal = _Terminal()
    with pytest.raises(ValueError, match="stop"), shown_progress(quiet=False, stream=terminal) as p:
        p("one")
        p("two")
        raise ValueError("stop")
    assert _screen(terminal.getvalue()) == ["  one", "  two", ""]


def test_a_file_gets_plain_lines_and_quiet_nothing() -> None:
    plain = io.StringIO()
    with shown_progress(quiet=False, stream=plain) as progress:
        progress("one")
    assert plain.getvalue() == "  one\n"
    with shown_progress(quiet=True, stream=plain) as progress:
        progress("two")
    assert plain.getvalue() == "  one\n"
