"""The table of verdicts, target x precision x runner, as wide as the terminal allows.

Three forms, of which the widest is taken that fits: every column; without kernels, versions and the
told error of the output, which stand below the table or in the JSON; one heading an artefact with
its runners below it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from deploykit.printable import printable_row
from deploykit.report.figures import (
    as_cosine,
    as_decibels,
    as_percent,
    format_figure,
    or_infinite,
)
from deploykit.verdict import Check, Question, Report, SkippedTarget, Verdict

_WIDE = (
    "target",
    "precision",
    "runner",
    "kernels",
    "size",
    "conversion error",
    "SNR dB",
    "cosine",
    "top-1",
    "verdict",
)
_MIDDLE = tuple(name for name in _WIDE if name != "kernels")
_NARROW = ("", "runner", "conversion error", "SNR dB", "top-1", "verdict")

#: What an int8 figure is of, where it is not of the output.
_KINDS = {
    "layer_error_lsb": "layers ",
    "layer_error_over_range": "layers ",
    "repeat_error_lsb": "repeat ",
    "repeat_error_over_range": "repeat ",
    "cpu_op_share": "CPU ops ",
}
_TOLD = ("output_error_lsb", "output_error_over_range")
_RED, _PLAIN = "\x1b[31m", "\x1b[0m"
_COLORS = {"PASS": "\x1b[32m", "WARN": "\x1b[33m"}
#: What is verified against the float reference, in words, and how its limit is shown.
_NOISE: dict[str, tuple[str, Callable[[float], str]]] = {
    "max_error_over_range": ("error to the reference", "{:g}".format),
    "snr_db": ("SNR", "{:g} dB".format),
    "cosine": ("cosine", "{:g}".format),
    "top1_agreement": ("top-1", as_percent),
    "clear_top1_agreement": ("top-1 of clear samples", as_percent),
}

Row = tuple[str, ...]


def render_verdicts(
    verdicts: Sequence[Verdict],
    skipped: Sequence[SkippedTarget] = (),
    *,
    width: int | None = None,
    color: bool = False,
) -> list[str]:
    """The table as lines.

    Args:
        verdicts: One row each.
        skipped: What was not written; a row for each that its target refused.
        width: Columns of the terminal; None for no limit.
        color: Whether to paint the verdicts (ANSI codes).
    """
    refused = [entry for entry in skipped if entry.refused]
    for header, rows in (_wide(verdicts, refused), _middle(verdicts, refused)):
        lines = aligned([header, *rows])
        if width is None or max(map(len, lines)) <= width:
            return aligned([header, *map(_painted, rows)]) if color else lines
    return _narrow(verdicts, refused, color=color)


def verdict_rows(report: Report) -> tuple[Row, list[Row]]:
    """Header and rows of the whole table, a row for each verdict and each refusal."""
    return _wide(report.verdicts, [entry for entry in report.skipped if entry.refused])


def aligned(rows: Sequence[Row]) -> list[str]:
    """Rows of cells as lines, each column as wide as its widest cell."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _wide(verdicts: Sequence[Verdict], refused: Sequence[SkippedTarget]) -> tuple[Row, list[Row]]:
    rows: list[Row] = []
    for verdict in verdicts:
        runner, kernels = verdict.runner_name, "-"
        if verdict.runner is not None:
            runner, kernels = f"{runner} {verdict.runner.version}", verdict.runner.kernels
        noise = (_snr(verdict), _cosine(verdict), _top1(verdict))
        error = format_conversion_error(verdict, output=True)
        start = (verdict.target, verdict.precision, runner, kernels, _size(verdict))
        rows.append(printable_row((*start, error, *noise, verdict.outcome.upper())))
    return _WIDE, [*rows, *_refusals(refused, len(_WIDE))]


def _middle(verdicts: Sequence[Verdict], refused: Sequence[SkippedTarget]) -> tuple[Row, list[Row]]:
    rows: list[Row] = [
        (
            *(verdict.target, verdict.precision, verdict.runner_name, _size(verdict)),
            format_conversion_error(verdict, output=False),
            *(_snr(verdict), _cosine(verdict), _top1(verdict), verdict.outcome.upper()),
        )
        for verdict in verdicts
    ]
    return _MIDDLE, [*rows, *_refusals(refused, len(_MIDDLE))]


def _refusals(refused: Sequence[SkippedTarget], columns: int) -> list[Row]:
    empty = ("-",) * (columns - 3)
    return [(entry.target, entry.precision, *empty, "REFUSED") for entry in refused]


def _narrow(
    verdicts: Sequence[Verdict], refused: Sequence[SkippedTarget], *, color: bool
) -> list[str]:
    rows: list[Row] = [
        (
            *("", verdict.runner_name, format_conversion_error(verdict, output=False)),
            *(_snr(verdict), _top1(verdict), verdict.outcome.upper()),
        )
        for verdict in verdicts
    ]
    header, *lines = aligned([_NARROW, *(map(_painted, rows) if color else rows)])
    found, heading = [header], ""
    for verdict, line in zip(verdicts, lines, strict=True):
        size = f", {verdict.bytes:,} bytes" if verdict.bytes else ""
        if (own := f"{verdict.target} {verdict.precision}{size}") != heading:
            found.append(heading := own)
        found.append(line)
    for entry in refused:
        word = _painted(("REFUSED",))[0] if color else "REFUSED"
        found.append(f"{entry.target} {entry.precision}: {word}")
    return found


def _painted(row: Row) -> Row:
    color = _COLORS.get(row[-1], _RED)
    return (*row[:-1], f"{color}{row[-1]}{_PLAIN}")


def noise_limits(verdicts: Sequence[Verdict]) -> list[str]:
    """The limits of the figures against the float reference, a line for each precision."""
    lines: dict[str, dict[str, str]] = {}
    for verdict in verdicts:
        for check in verdict.checks:
            if check.question is Question.QUANTIZATION and (words := _limit_words(check)):
                lines.setdefault(verdict.precision, {})[check.metric] = words
    return [f"limits of {name}: {', '.join(words.values())}" for name, words in lines.items()]


def _limit_words(check: Check) -> str:
    """A check's limits in words; empty if it has none."""
    what, shown = _NOISE.get(check.metric, (check.metric, "{:g}".format))
    sign = "<=" if check.at_most else ">="
    parts = [] if check.limit is None else [f"{what} {sign} {shown(check.limit)}"]
    if check.warn_limit is not None:
        start = "" if parts else f"{what} "
        parts.append(f"{start}(warns unless {sign} {shown(check.warn_limit)})")
    return " ".join(parts)


def format_conversion_error(verdict: Verdict, *, output: bool) -> str:
    """The conversion check that is nearest to its limit, or furthest beyond it.

    Args:
        verdict: Whose checks.
        output: Whether the output's error is reported too where it is not what is verified.
    """
    checks = [c for c in verdict.checks if c.question is Question.CONVERSION]
    limited = [c for c in checks if c.limit is not None] or checks
    if not limited:
        return "-"
    worst = max(limited, key=lambda c: (not c.passed, _share_of_limit(c)))
    unit = " LSB" if worst.metric.endswith("_lsb") else ""
    limit = f" (<= {worst.limit:g})" if worst.limit is not None else ""
    told = [c for c in checks if c.metric in _TOLD and c is not worst]
    furthest = max(told, key=lambda c: or_infinite(c.measured), default=None) if output else None
    more = f", output {format_figure(furthest.metric, furthest.measured)}" if furthest else ""
    kind = _KINDS.get(worst.metric, "")
    return f"{kind}{format_figure(worst.metric, worst.measured)}{unit}{limit}{more}"


def format_least(verdict: Verdict, metric: str, shown: Callable[[float], str]) -> str:
    """The least figure of a metric over the outputs, ``-`` if there is none."""
    values = [
        c.measured
        for c in verdict.checks
        if c.question is Question.QUANTIZATION and c.metric == metric
    ]
    if not values:
        return "-"
    return shown(math.nan if any(math.isnan(v) for v in values) else min(values))


def _share_of_limit(check: Check) -> float:
    return or_infinite(check.measured / check.limit if check.limit else check.measured)


def _size(verdict: Verdict) -> str:
    return f"{verdict.bytes:,}" if verdict.bytes else "-"


def _snr(verdict: Verdict) -> str:
    return format_least(verdict, "snr_db", as_decibels)


def _cosine(verdict: Verdict) -> str:
    return format_least(verdict, "cosine", as_cosine)


def _top1(verdict: Verdict) -> str:
    return format_least(verdict, "top1_agreement", as_percent)
