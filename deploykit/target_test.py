from __future__ import annotations

from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from deploykit import target as module
from deploykit.errors import ContractError, UserError
from deploykit.model import Precision
from deploykit.target import ArtifactRequest, Target, available_targets, find_target, policy_of
from deploykit.target_definition import TargetDefinition


def test_tflite_is_found_by_its_entry_point() -> None:
    assert "tflite" in available_targets()
    assert isinstance(find_target("tflite"), Target)


def test_an_unknown_target_names_the_known() -> None:
    with pytest.raises(UserError, match="tflite"):
        find_target("nowhere")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("no_such_package_of_a_test:TARGET", "cannot be imported"),
        ("deploykit.errors:NO_SUCH_NAME", "cannot be imported"),
        ("deploykit.errors:EXIT_OK", "is a int"),
    ],
)
def test_a_plug_in_that_does_not_fit_is_named(
    monkeypatch: pytest.MonkeyPatch, value: str, words: str
) -> None:
    entry = EntryPoint("broken", value, module.ENTRY_POINT_GROUP)
    monkeypatch.setattr(module, "entry_points", lambda **_: [entry])
    with pytest.raises(UserError, match=words) as caught:
        find_target("broken")
    assert "broken" in str(caught.value)


def test_a_policy_follows_from_the_options_where_a_target_has_such() -> None:
    onnx = find_target("onnx")
    usual = policy_of(onnx, Precision.INT8, {})
    assert usual == onnx.policy(Precision.INT8)
    assert usual is not None
    assert usual.recipe.activations is not None
    other = policy_of(onnx, Precision.INT8, {"activations": "uint8"})
    assert other is not None
    assert other.recipe.activations is not None
    assert other.recipe.activations.dtype == "uint8" != usual.recipe.activations.dtype
    with pytest.raises(ContractError, match="option activations is 'int4'"):
        policy_of(onnx, Precision.INT8, {"activations": "int4"})


@pytest.mark.parametrize("name", sorted(available_targets()))
def test_floats_are_not_quantized_and_integers_are(name: str) -> None:
    target = find_target(name)
    assert policy_of(target, Precision.FP32, {}) is None
    policy = policy_of(target, Precision.INT8, {})
    assert policy is not None
    assert policy.recipe.activations is not None
    if Precision.W8 in target.precisions:
        weights = policy_of(target, Precision.W8, {})
        assert weights is None or weights.recipe.activations is None


_WORKING = TargetDefinition(
    name="broken",
    precisions=(Precision.FP32,),
    writer="deploykit.target:find_target",
    lowering_table="deploykit.target:available_targets",
)


def test_a_definition_with_what_is_required_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _load(monkeypatch, _WORKING) is _WORKING


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"writer": ""}, "writer is empty"),
        ({"writer": "deploykit.target:find_targte"}, "has no find_targte"),
        ({"recognizer": "deploykit.no_such_module:f"}, "no module deploykit.no_such_module"),
        ({"inspector": "no_such_package.part:f"}, "No module named 'no_such_package'"),
        ({"quantization": "deploykit.target"}, "not of the form module:attribute"),
        ({"interface": 2}, "written for interface 2, this is 1"),
        ({"name": "other"}, "it calls itself 'other'"),
        ({"precisions": ()}, "it has no precision"),
        ({"preferred": Precision.INT8}, "it prefers int8, which it cannot write"),
        ({"runners": (replace(find_target("tflite").runners[0], backend="a.b:C"),)}, "a.b:C"),
    ],
)
def test_a_definition_that_names_nothing_is_an_error_at_loading(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        _load(monkeypatch, replace(_WORKING, **change))


def test_a_field_that_does_not_exist_is_an_error_at_loading() -> None:
    with pytest.raises(TypeError, match="inspekt"):
        replace(_WORKING, inspekt="deploykit.target:find_target")  # type: ignore[call-arg]


def test_capabilities_that_are_left_empty_are_none() -> None:
    assert not _WORKING.recognizes(Path(__file__))
    assert _WORKING.policy(Precision.INT8) is None
    assert _WORKING.default_precision is Precision.FP32
    _WORKING.check_request(ArtifactRequest(Precision.FP32))


def _load(monkeypatch: pytest.MonkeyPatch, definition: TargetDefinition) -> TargetDefinition:
    monkeypatch.setattr(module, "under_test", definition, raising=False)
    entry = EntryPoint("broken", "deploykit.target:under_test", module.ENTRY_POINT_GROUP)
    monkeypatch.setattr(module, "entry_points", lambda **_: [entry])
    return find_target("broken")
