"""Figures of a report as text: as many digits as say something."""

from __future__ import annotations

import math
from collections.abc import Callable


def format_figure(metric: str, value: float) -> str:
    """A figure as its metric is written, without a unit that is always the same."""
    if metric.endswith("_lsb"):
        return as_steps(value)
    shown: dict[str, Callable[[float], str]] = {
        "snr_db": as_decibels,
        "cosine": as_cosine,
        "top1_agreement": as_percent,
        "clear_top1_agreement": as_percent,
        "top1_loss": as_percent,
        "cpu_op_share": as_percent,
    }
    return shown.get(metric, as_error)(value)


def as_error(value: float) -> str:
    """A share of a range."""
    return "0" if value == 0 else f"{value:.1e}" if math.isfinite(value) else str(value)


def as_steps(value: float) -> str:
    """Steps of a scale."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if math.isfinite(value) else str(value)


def as_decibels(value: float) -> str:
    """Signal to noise."""
    return f"{round(value, 1) + 0.0:.1f}"  # no "-0.0"


def as_cosine(value: float) -> str:
    """A cosine."""
    return f"{value:.5f}"


def as_percent(value: float) -> str:
    """A share of 0..1."""
    return f"{100 * value:.1f} %"


def or_infinite(value: float) -> float:
    """The figure; infinity for one that is not a number, so that it counts as the worst."""
    return math.inf if math.isnan(value) else value
