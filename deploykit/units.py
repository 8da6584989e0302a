"""Figures as people read them: decimal prefixes, three digits that count."""

from __future__ import annotations


def format_count(number: float) -> str:
    """A count: ``0``, ``960``, ``1.28 k``, ``300.77 M``."""
    return _scaled(number, ("", " k", " M", " G", " T"))


def format_bytes(number: float) -> str:
    """Bytes in powers of ten: ``96 B``, ``4.82 MB``."""
    return _scaled(number, (" B", " kB", " MB", " GB", " TB"))


def format_us(microseconds: float | None) -> str:
    """A time: ``12.3 us``, ``6.83 ms``; a dash where there is none."""
    if microseconds is None:
        return "-"
    if microseconds < 1000:
        return f"{microseconds:.1f} us"
    return f"{microseconds / 1000:.2f} ms"


def _scaled(number: float, prefixes: tuple[str, ...]) -> str:
    step = 0
    while abs(number) >= 999.995 and step < len(prefixes) - 1:
        number /= 1000
        step += 1
    text = f"{number:.2f}" if step or number != int(number) else f"{number:.0f}"
    return f"{text}{prefixes[step]}"
