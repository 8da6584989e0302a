"""What a terminal is shown of text that a file brings."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.printable import LONGEST_NAME, escape_controls, printable_name, printable_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ünïcode 画像", "plain ünïcode 画像"),
        ("\x1b[2J", "\\u001b[2J"),
        ("a\rb", "a\\u000db"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\x9b31m", "\\u009b31m"),
        ("\udce9", "\\udce9"),
        ("\U000e0041", "\\udb40\\udc41"),
    ],
)
def test_escapes(text: str, shown: str) -> None:
    assert escape_controls(text) == shown


@given(st.text(), st.text())
def test_json_stays_json_and_says_the_same(key: str, value: str) -> None:
    document = json.dumps({key: value}, ensure_ascii=False)
    assert json.loads(escape_controls(document)) == {key: value}


@given(st.text(alphabet=st.characters()))
def test_a_name_is_one_short_line(name: str) -> None:
    shown = printable_name(name * 50)
    assert "\n" not in shown
    assert len(shown) <= LONGEST_NAME + 30
    shown.encode()


def test_a_long_name_keeps_both_ends() -> None:
    shown = printable_name("begin" + "x" * 10_000 + "end")
    assert shown.startswith("begin")
    assert shown.endswith("end")
    assert "10,008 characters" in shown


def test_a_line_cannot_be_forged() -> None:
    text = "node 'a\nwrote model.tflite' is odd\n  expected: another"
    assert printable_text(text) == "node 'a\\nwrote model.tflite' is odd\n  expected: another"


def test_long_texts_are_cut() -> None:
    text = "\n".join(["first", *["  " + "y" * 5000] * 5000])
    assert len(printable_text(text)) < 250_000
