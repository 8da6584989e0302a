"""What every test of the tree stands on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

#: What `make test` and CI run: the same examples each time. Without it they are new ones.
settings.register_profile("repeatable", derandomize=True)


# Runners are child processes: they too find what tests share.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, (str(Path(__file__).parent / "test_support"), os.environ.get("PYTHONPATH")))
)

pytest.register_assert_rewrite("deploykit_testing")


@pytest.fixture(autouse=True)
def unlimited_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are as wide as they are: workers of a parallel run have a separate COLUMNS."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def bugs_are_told() -> None:
    """For a test of what a bug of ours looks like: see `bugs_are_raised`."""


@pytest.fixture(autouse=True)
def bugs_are_raised(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line's last guard hides no bug from a test: it raises instead of exit code 70."""
    if "bugs_are_told" in request.fixturenames:
        return

    def raise_it(error: Exception, show_traceback: bool) -> int:
        raise error

    monkeypatch.setattr("deploykit.cli.guard.tell_bug", raise_it)
