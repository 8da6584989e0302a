"""JSON from files that others made: one strict reader, and the checks of single fields.

Python's reader takes more than JSON is (NaN, numbers that become infinity, one key twice), and
raises what no caller expects on deep nesting. Here all of that is a `ValueError` with words.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deploykit.limits import current_limits

#: Integers of more bits are no count, size or dimension of anything.
_INTEGER_BITS = 63


def read_json(path: Path) -> Any:
    """The document of a file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is too large, not UTF-8, or no strict JSON.
    """
    limit = current_limits().json_bytes
    with path.open("rb") as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"it is larger than {limit:,} bytes (--max json_bytes=SIZE allows more)")
    return parse_json(data)


def parse_json(data: bytes | str) -> Any:
    """The document of a text.

    Raises:
        ValueError: not UTF-8, or no strict JSON: NaN or infinity, a number that no float or
            64-bit integer holds, a key that an object has twice, or nesting beyond the limits.
    """
    text = data.decode("utf-8") if isinstance(data, bytes) else data
    try:
        document = json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_parse_float,
            parse_int=_parse_int,
            object_pairs_hook=_parse_object,
        )
        _check_nesting(document, current_limits().nesting)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return document


def _check_nesting(document: Any, limit: int) -> None:
    level = [document]
    for _ in range(limit):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                inner += [v for v in value.values() if isinstance(v, (dict, list))]
            elif isinstance(value, list) and not _is_flat(value):
                inner += [v for v in value if isinstance(v, (dict, list))]
        if not inner:
            return
        level = inner
    raise ValueError(f"it is nested more than {limit} deep (--max nesting=N allows more)")


def _is_flat(values: list[Any]) -> bool:
    return not any(type(v) in (dict, list) for v in values)


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is no number of JSON")


def _parse_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


def _parse_int(text: str) -> int:
    if len(text) > 20 or (value := int(text)).bit_length() > _INTEGER_BITS:
        raise ValueError(f"the integer {text[:40]} is too large")
    return value


def _parse_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has a key twice")
    return found


def whole(value: Any, what: str, *, least: int = 0) -> int:
    """A whole number of at least ``least``; JSON's true and 1.0 are none.

    Raises:
        ValueError: with ``what`` and what was found.
    """
    if type(value) is not int or value < least:
        raise ValueError(f"{what} is {_shown(value)}, expected a whole number from {least} on")
    return value


def number(value: Any, what: str) -> float:
    """A finite number, as float; raises as `whole`."""
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{what} is {_shown(value)}, expected a number")
    return float(value)


def text(value: Any, what: str) -> str:
    """A text that UTF-8 can hold; raises as `whole`."""
    if not isinstance(value, str) or not (value.isascii() or _encodes(value)):
        raise ValueError(f"{what} is {_shown(value)}, expected a text")
    return value


def array(value: Any, what: str) -> Sequence[Any]:
    """A list; raises as `whole`."""
    if not isinstance(value, (list, tuple)):
        raise ValueError(  # noqa: TRY004 - one kind of error for all that a file may hold
            f"{what} is {_shown(value)}, expected a list"
        )
    return value


def table(value: Any, what: str) -> Mapping[str, Any]:
    """An object; raises as `whole`."""
    if not isinstance(value, Mapping) or not all(isinstance(k, str) for k in value):
        raise ValueError(f"{what} is {_shown(value)}, expected an object with names")
    return value


def _encodes(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: Any) -> str:
    shown = ascii(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
