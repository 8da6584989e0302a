from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from deploykit import target as module
from deploykit.errors import ContractError, UserError
from deploykit.model import Precision
from deploykit.target import Target, available_targets, find_target, policy_of


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
        ("deploykit.errors:EXIT_OK", "lacks inspect, lowerings"),
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
