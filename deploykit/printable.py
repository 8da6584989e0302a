"""Text from files as a terminal may show it.

A node, a label or a file may bear any name: with escape sequences that repaint the terminal, marks
that turn the direction of writing, line ends that forge a line of ours, or 10,000 characters. What
is shown is escaped as JSON and Python escape it (``\\u202e``), which also keeps JSON valid.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

#: Shown of one name.
LONGEST_NAME = 120
_LONGEST_LINE = 1_000
_MOST_LINES = 200

# C0 and C1 controls but line feed and tab, the marks and overrides of bidirectional text, line and
# paragraph separators, the byte order mark, tags, and lone surrogates.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def escape_controls(text: str) -> str:
    """``text`` with every character that is no plain writing escaped; line feeds and tabs stay."""
    return _UNSAFE.sub(_escaped, text) if _UNSAFE.search(text) else text


def printable_name(name: str) -> str:
    """A name on one line: escaped, and cut in its middle beyond `LONGEST_NAME` characters."""
    shown = _on_one_line(name)
    if len(shown) <= LONGEST_NAME:
        return shown
    half = LONGEST_NAME // 2 - 10
    return f"{shown[:half]}...({len(name):,} characters)...{shown[-half:]}"


def printable_line(text: str) -> str:
    """A sentence on one line: escaped, and cut in its middle beyond 1,000 characters."""
    return _cut(_on_one_line(text))


def printable_lines(text: str) -> str:
    """As `printable_line`, of each line by itself."""
    return "\n".join(map(_cut, escape_controls(text).split("\n")))


def printable_row(cells: Iterable[str]) -> tuple[str, ...]:
    """The cells of a row of a table, each as `printable_name` shows it."""
    return tuple(map(printable_name, cells))


def printable_text(text: str) -> str:
    """The lines of a message: escaped, long ones and long lists of them cut.

    Our messages indent every line but the first. A line that is not indented came in with a name,
    and is joined to the one before it.
    """
    lines = re.sub(r"\n(?![ \n]|\Z)", r"\\n", escape_controls(text)).split("\n")
    if len(lines) > _MOST_LINES:
        left = len(lines) - _MOST_LINES
        lines = [*lines[:_MOST_LINES], f"  ... and {left:,} more lines"]
    return "\n".join(_cut(line) for line in lines)


def last_line(error: BaseException) -> str:
    """What an exception of a library says in the end: it may quote a whole graph before that."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = str(cause).strip().splitlines()
    return printable_name(lines[-1]) if lines else type(cause).__name__


def _on_one_line(text: str) -> str:
    return escape_controls(text).replace("\n", "\\n").replace("\t", "\\t")


def _cut(line: str) -> str:
    if len(line) <= _LONGEST_LINE:
        return line
    half = _LONGEST_LINE // 2
    return f"{line[:half]} ...({len(line):,} characters)... {line[-half:]}"


def _escaped(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
