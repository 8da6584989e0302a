"""Strict JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit import json_file
from deploykit.json_file import parse_json, read_json
from deploykit.limits import Limits, limits_set

_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)  # fmt: skip


@given(_PLAIN)
def test_plain_documents_are_read(document: object) -> None:
    assert parse_json(json.dumps(document)) == document


@pytest.mark.parametrize(
    "text",
    [
        "1e400", "-1e400", "NaN", "Infinity", "[-Infinity]", "9" * 400, "9" * 5000, str(1 << 64),
        "[" * 100_000 + "]" * 100_000, '{"a":' * 2000 + "1" + "}" * 2000, "[" * 80 + "]" * 80,
        '{"a": 1, "a": 2}', "", "{", "'a'",
    ],
)  # fmt: skip
def test_what_is_no_strict_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="."):
        parse_json(text)


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b'"\xff"')
    with pytest.raises(ValueError, match="utf-8"):
        read_json(path)


def test_too_large(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("[" + "1," * 1000 + "1]")
    assert len(read_json(path)) == 1001
    with limits_set(Limits(json_bytes=1000)), pytest.raises(ValueError, match="1,000 bytes"):
        read_json(path)


def test_single_fields() -> None:
    assert json_file.whole(3, "n") == 3
    assert json_file.number(3, "x") == 3.0
    for check, value in [
        (json_file.whole, True), (json_file.whole, 1.0), (json_file.whole, -1),
        (json_file.number, "1"), (json_file.number, False), (json_file.number, float("inf")),
        (json_file.text, 1), (json_file.text, "\ud800"), (json_file.array, "ab"),
        (json_file.array, {"a": 1}), (json_file.table, [1]), (json_file.table, {1: 1}),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match="it is"):
            check(value, "it")
