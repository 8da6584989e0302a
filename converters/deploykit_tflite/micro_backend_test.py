"""What needs no TFLM: the search for the arena."""

from __future__ import annotations

import pytest

from deploykit_tflite.micro_backend import smallest_size


@pytest.mark.parametrize("needed", [1, 16, 17, 4096, 99_990, 100_000])
def test_the_smallest_size_is_found_to_16_bytes(needed: int) -> None:
    asked: list[int] = []

    def works(size: int) -> bool:
        asked.append(size)
        return size >= needed

    assert smallest_size(works, 100_000) == -(-needed // 16) * 16
    assert len(asked) <= 13
