"""Options of targets: their form, and for whom they are."""

from __future__ import annotations

import pytest

from deploykit.errors import UserError
from deploykit.target_options import check_option_targets, parse_target_options


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
