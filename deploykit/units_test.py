from __future__ import annotations

import pytest

from deploykit.units import format_bytes, format_count, format_us


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0"), (960, "960"), (1280, "1.28 k"), (999_994, "999.99 k"), (999_996, "1.00 M"),
     (300_774_272, "300.77 M"), (2.5e9, "2.50 G"), (0.5, "0.50")],
)  # fmt: skip
def test_counts(number: float, shown: str) -> None:
    assert format_count(number) == shown


def test_bytes_and_times() -> None:
    assert format_bytes(96) == "96 B"
    assert format_bytes(4_816_896) == "4.82 MB"
    assert format_us(12.34) == "12.3 us"
    assert format_us(6830) == "6.83 ms"
    assert format_us(None) == "-"
