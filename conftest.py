"""What every test of the tree stands on."""

from __future__ import annotations

import pytest
from hypothesis import settings

#: What `make test` and CI run: the same examples each time. Without it they are new ones.
settings.register_profile("repeatable", derandomize=True)


@pytest.fixture(autouse=True)
def unlimited_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are as wide as they are: workers of a parallel run have a COLUMNS of their own."""
    monkeypatch.delenv("COLUMNS", raising=False)
