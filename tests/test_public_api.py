"""The names that `import deploykit` promises."""

from __future__ import annotations

import deploykit


def test_every_public_name_can_be_imported() -> None:
    for name in deploykit.__all__:
        assert getattr(deploykit, name) is not None


def test_dir_lists_the_public_names() -> None:
    assert dir(deploykit) == sorted(deploykit.__all__)


def test_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(deploykit, "no_such_name")
