"""What needs no TFLM: the search for the arena, and what native code says."""

from __future__ import annotations

import os

import pytest

from deploykit_tflite.micro_backend import captured_stderr, smallest_size


@pytest.mark.parametrize("needed", [1, 16, 17, 4096, 99_990, 100_000])
def test_the_smallest_size_is_found_to_16_bytes(needed: int) -> None:
    asked: list[int] = []

    def works(size: int) -> bool:
        asked.append(size)
        return size >= needed

    assert smallest_size(works, 100_000) == -(-needed // 16) * 16
    assert len(asked) <= 13


def test_what_native_code_writes_is_read_and_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    with captured_stderr() as words:
        os.write(2, b"no memory\n")
        assert words() == "no memory\n"
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"
