"""Text from the command line to the plain values of `LoadOptions`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from deploykit.errors import UserError

ArgumentValue = bool | int | float | str | None

_INT = re.compile(r"[+-]?\d+")
_FLOAT = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][+-]?\d+)?")
_WORDS: dict[str, ArgumentValue] = {"true": True, "false": False, "none": None}


def parse_input_shape(text: str) -> tuple[int, ...]:
    """``1x3x224x224`` (or with commas) to ``(1, 3, 224, 224)``.

    Raises:
        UserError: anything but positive whole numbers.
    """
    parts = re.split(r"[x×,]", text.strip().lower())
    if not all(re.fullmatch(r"\s*\d+\s*", part) and int(part) > 0 for part in parts):
        raise UserError(
            f"the input shape '{text}'",
            expected="positive whole numbers with x between them, e.g. 1x3x224x224 (NCHW)",
        )
    return tuple(int(part) for part in parts)


def parse_arch_kwargs(pairs: Sequence[str]) -> dict[str, ArgumentValue]:
    """``["num_classes=10", "act=relu"]`` to ``{"num_classes": 10, "act": "relu"}``.

    Whole numbers, floats, ``true``, ``false`` and ``none`` become what they look like; all else,
    and anything in quotes, is a string.

    Raises:
        UserError: a pair without ``=``, a name that is no identifier, or a name given twice.
    """
    result: dict[str, ArgumentValue] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        name = name.strip()
        if not equals or not name.isidentifier():
            raise UserError(
                f"the architecture argument '{pair}'",
                expected="NAME=VALUE, e.g. num_classes=10",
            )
        if name in result:
            raise UserError(
                f"the architecture argument '{name}' is given twice", expected="once at most"
            )
        result[name] = _value_of(value.strip())
    return result


def _value_of(text: str) -> ArgumentValue:
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    return text
