"""What every test of the tree stands on."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def unlimited_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are as wide as they are: workers of a parallel run have a COLUMNS of their own."""
    monkeypatch.delenv("COLUMNS", raising=False)
