"""Flags that targets declare: shown, spelled as options, and never a reason to fail for others."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from deploykit.cli import build_parser
from deploykit.cli.convert import declared_flags
from deploykit.errors import UserError
from deploykit.target import available_targets, find_target, options_of
from deploykit.target_options import TargetOption


class Declaring(SimpleNamespace):
    """A target as far as its options go."""


def install(monkeypatch: pytest.MonkeyPatch, **flags: str) -> None:
    """Let targets be installed that each declare one flag; an empty one cannot be imported."""

    def find(name: str) -> Declaring:
        if not flags[name]:
            raise UserError(f"the target {name!r} cannot be imported")
        option = TargetOption("level", ("1", "2"), "1", "a level", flag=flags[name])
        return Declaring(options=(option,))

    monkeypatch.setattr("deploykit.target.available_targets", lambda: dict.fromkeys(flags, "m:T"))
    monkeypatch.setattr("deploykit.target.find_target", find)


def parsed(*arguments: str) -> list[str]:
    found: list[str] = build_parser("convert").parse_args(["convert", "m", *arguments]).option
    return found


def test_every_declared_flag_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser("convert").parse_args(["convert", "--help"])
    text = capsys.readouterr().out
    flags = [
        o.flag for name in available_targets() for o in options_of(find_target(name)) if o.flag
    ]
    assert {"--ios", "--palettize", "--ort", "--io"} <= set(flags)
    for flag in flags:
        assert f"{flag} " in text


def test_a_flag_is_an_option_spelled_shortly() -> None:
    assert parsed() == []
    assert parsed("--ios", "17", "--palettize", "6") == ["coreml.ios=17", "coreml.palettize=6"]
    assert parsed("--option", "onnx.activations=uint8", "--ort") == [
        "onnx.activations=uint8",
        "onnx.ort=yes",
    ]
    assert parsed() == []  # one parser's list is not the next one's


def test_a_flag_of_two_targets_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, one="--level", other="--level")
    with pytest.raises(UserError, match="one and other both declare the flag --level"):
        declared_flags()


def test_a_target_that_cannot_be_imported_has_no_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, broken="", whole="--level")
    assert [(name, option.flag) for name, option in declared_flags()] == [("whole", "--level")]
