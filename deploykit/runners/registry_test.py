from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from deploykit.errors import UserError
from deploykit.runners.base import RunnerDefinition
from deploykit.runners.registry import available_runners, find_runner, runner_definitions


def install(monkeypatch: Any, **targets: tuple[str, ...]) -> list[str]:
    """Let targets with runners of these names be installed; returns which ones get imported."""
    imported: list[str] = []

    def find(name: str) -> SimpleNamespace:
        imported.append(name)
        runners = [RunnerDefinition(r, "m:C", "numpy", "x", name, "") for r in targets[name]]
        return SimpleNamespace(runners=tuple(runners))

    monkeypatch.setattr("deploykit.target.available_targets", lambda: dict.fromkeys(targets, "m:T"))
    monkeypatch.setattr("deploykit.target.find_target", find)
    return imported


def test_lists_the_core_and_every_target(monkeypatch: Any) -> None:
    install(monkeypatch, tflite=("litert", "litert-reference"), ncnn=("ncnn",))
    known = runner_definitions()
    assert list(known) == [
        *("torch", "tensorflow", "onnxruntime"),
        *("litert", "litert-reference", "ncnn"),
    ]
    assert known["litert"].runs == "tflite"
    assert all(name == definition.name for name, definition in known.items())


def test_a_runner_of_the_core_is_found_without_importing_a_target(monkeypatch: Any) -> None:
    imported = install(monkeypatch, tflite=("litert",))
    assert find_runner("onnxruntime").runs == "onnx"
    assert imported == []
    assert find_runner("litert").runs == "tflite"
    assert imported == ["tflite"]


def test_an_unknown_name_is_refused_with_the_known_ones(monkeypatch: Any) -> None:
    install(monkeypatch, tflite=("litert",))
    with pytest.raises(UserError, match="no runner is called 'lite'") as caught:
        find_runner("lite")
    assert "torch, tensorflow, onnxruntime, litert" in caught.value.expected


def test_two_runners_of_one_name_are_a_bug_of_the_plug_in(monkeypatch: Any) -> None:
    install(monkeypatch, ncnn=("onnxruntime",))
    with pytest.raises(ValueError, match=r"ncnn.*'onnxruntime'"):
        runner_definitions()


def test_a_runner_on_request_is_not_taken_by_itself() -> None:
    always = RunnerDefinition("a", "m:C", "numpy", "x", "t", "")
    asked = RunnerDefinition("b", "m:C", "numpy", "x", "t", "", on_request=True)
    assert available_runners((always, asked)) == (always,)
