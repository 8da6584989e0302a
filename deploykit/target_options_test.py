"""Options of targets: their form, and for whom they are."""

from __future__ import annotations

import pytest

from deploykit.errors import ContractError, UserError
from deploykit.target_options import (
    TargetOption,
    check_option_targets,
    check_options,
    options_of_precision,
    parse_target_options,
)

DECLARED = (
    TargetOption("io", ("float32", "uint8"), "float32", "type"),
    TargetOption("channels", (), "all", "how many", precisions=("w8",)),
    TargetOption("author", (), "none", "who", text=True),
    TargetOption("metadata.KEY", (), "none", "any", text=True),
)


def test_options_are_told_apart_by_target() -> None:
    texts = ["coreml.ios=17", "tflite.io=float32", "coreml.palettize = 6", "coreml.ios=17"]
    assert parse_target_options(texts) == {
        "coreml": {"ios": "17", "palettize": "6"},
        "tflite": {"io": "float32"},
    }


@pytest.mark.parametrize("text", ["ios=17", "coreml.ios", "coreml.=3", ".ios=3", "coreml.ios=", ""])
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"TARGET\.NAME=VALUE"):
        parse_target_options([text])


def test_two_values_are_refused() -> None:
    with pytest.raises(UserError, match="given twice"):
        parse_target_options(["coreml.ios=17", "coreml.ios=18"])


def test_options_of_a_target_that_is_not_written_are_refused() -> None:
    check_option_targets({"coreml": {"ios": "17"}}, ["tflite", "coreml"])
    with pytest.raises(UserError, match=r"coreml\.ios for coreml, which nothing is written for"):
        check_option_targets({"coreml": {"ios": "17"}}, ["tflite"])


def test_a_key_may_hold_dots() -> None:
    parsed = parse_target_options(["coreml.metadata.com.example.id=a=b"])
    assert parsed == {"coreml": {"metadata.com.example.id": "a=b"}}


def test_defaults_stand_in_for_what_is_not_given_but_not_for_families() -> None:
    chosen = check_options("t", DECLARED, {"author": "Ada", "metadata.x": "1", "channels": "8"})
    expected = {"io": "float32", "channels": "8", "author": "Ada", "metadata.x": "1"}
    assert chosen == expected


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"io": "int4"}, "io is 'int4'"),
        ({"channels": "0"}, "a number from 1 on"),
        ({"author": "  "}, "any text"),
        ({"metadata": "x"}, "no option 'metadata'"),
        ({"metadata.": "x"}, r"no option 'metadata\.'"),
    ],
)
def test_what_is_not_declared_is_refused(given: dict[str, str], words: str) -> None:
    with pytest.raises(ContractError, match=words):
        check_options("t", DECLARED, given)


def test_options_of_other_precisions_are_left_out() -> None:
    given = {"channels": "8", "io": "uint8"}
    assert options_of_precision("t", DECLARED, given, "w8") == given
    assert options_of_precision("t", DECLARED, given, "int8") == {"io": "uint8"}
