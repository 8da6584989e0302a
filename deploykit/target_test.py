from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from deploykit import target as module
from deploykit.errors import UserError
from deploykit.target import Target, available_targets, find_target


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
