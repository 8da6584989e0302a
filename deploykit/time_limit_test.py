from __future__ import annotations

import contextlib
import threading
import time

import pytest

from deploykit.errors import EXIT_UNSUPPORTED, UnsupportedModelError
from deploykit.limits import Limits, limits_set
from deploykit.time_limit import time_limit


def _work(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(Exception):  # what a careless loop does holds no limit off
            sum(range(1000))


def test_work_that_takes_too_long_is_ended_and_named() -> None:
    start = time.monotonic()
    with (
        pytest.raises(UnsupportedModelError, match="the pass odd took longer than 1 s") as raised,
        limits_set(Limits(stage_seconds=1)),
        time_limit("the pass odd"),
    ):
        _work(30)
    assert time.monotonic() - start < 10
    assert raised.value.exit_code == EXIT_UNSUPPORTED
    assert "--max stage_seconds" in str(raised.value)


def test_work_within_the_limit_is_left_alone() -> None:
    with limits_set(Limits(stage_seconds=1)):
        for _ in range(3):
            with time_limit("quick"):
                _work(0.01)
        _work(1.3)  # no timer is left behind


def test_an_inner_limit_is_the_inner_work_s() -> None:
    with (
        pytest.raises(UnsupportedModelError, match="inner"),
        limits_set(Limits(stage_seconds=60)),
        time_limit("outer"),
        limits_set(Limits(stage_seconds=1)),
        time_limit("inner"),
    ):
        _work(30)


def test_it_holds_in_another_thread() -> None:
    found: list[str] = []

    def run() -> None:
        with limits_set(Limits(stage_seconds=1)):
            try:
                with time_limit("there"):
                    _work(30)
            except UnsupportedModelError as error:
                found.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(20)
    assert len(found) == 1
    assert "there took longer" in found[0]
