"""The report as text for a terminal: one row a verdict, and below it what failed and what to do."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from deploykit.report.model import Check, LayerRow, Question, Report, StageRow, Verdict
from deploykit.runners.base import RunnerInfo

_HEADER = (
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
_LAYER_HEADER = ("value", "op", "module", "error/range", "SNR dB", "LSB", "")
_WORST_MARKED = 3
_WORDS = {
    "max_error_over_range": "largest error over the value's range",
    "max_error_lsb": "largest error in output steps",
    "output_error_lsb": "largest error in output steps",
    "output_error_over_range": "largest error over the output's range",
    "repeat_error_lsb": "largest difference to this runner's earlier run, in output steps",
    "layer_error_lsb": "largest error of a layer by itself, in its own steps",
    "repeat_error_over_range": "largest difference to this runner's earlier run, over the range",
    "layer_error_over_range": "largest error of a layer by itself, over its own range",
    "snr_db": "signal to noise",
    "cosine": "cosine of the worst sample",
    "top1_agreement": "top-1 agreement",
}
#: What an int8 figure is of, where it is not of the output.
_KINDS = {
    "layer_error_lsb": "layers ",
    "layer_error_over_range": "layers ",
    "repeat_error_lsb": "repeat ",
    "repeat_error_over_range": "repeat ",
}
_TOLD = ("output_error_lsb", "output_error_over_range")
_ADVICE = {
    Question.CONVERSION: (
        "run again with --layers: the first value that departs names the layer; if another runner "
        "passes, it is this runtime's kernels"
    ),
    Question.QUANTIZATION: (
        "run again with --layers to see where the noise enters; calibrate with more data that is "
        "like what the model will see; or keep a higher precision"
    ),
}
_GREEN, _RED, _PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[0m"


def render_report(report: Report, *, verbose: bool = False, color: bool = False) -> str:
    """The report as a table and, where a verdict failed, what failed and what to do.

    Args:
        report: What to show.
        verbose: Every check, also of verdicts that passed.
        color: Whether to paint the verdicts (ANSI codes).

    Returns:
        Text without a newline at its end.
    """
    counts = sorted({v.samples for v in report.verdicts})
    samples = f"   samples: {', '.join(map(str, counts))}" if counts else ""
    lines = [f"model: {report.model}   reference: {report.reference}{samples}", ""]
    table = _table([_HEADER, *(_row(v) for v in report.verdicts)])
    if color:
        painted = zip(table[1:], report.verdicts, strict=True)
        table[1:] = [_paint(line, verdict) for line, verdict in painted]
    lines += table
    if machines := _machines(report.verdicts):
        lines += ["", *machines]
    for verdict in report.verdicts:
        if verbose or not verdict.passed:
            lines += ["", *_details(verdict, verbose=verbose)]
    if report.stages:
        lines += ["", "stages against the float reference", *_stages(report.stages)]
    if report.warnings:
        lines += ["", *(f"warning: {warning}" for warning in report.warnings)]
    return "\n".join(lines).rstrip()


def render_layers(rows: Sequence[LayerRow]) -> str:
    """Values in the order of the graph; the three with the largest error are marked, worst first.

    A value whose shapes differ between artefact and stage has ``nan`` and counts as the worst.
    """
    errors = [_or_infinite(row.max_error_over_range) for row in rows]
    ranked = sorted((i for i, e in enumerate(errors) if e > 0), key=lambda i: (-errors[i], i))
    marks = {index: f"<- worst {place}" for place, index in enumerate(ranked[:_WORST_MARKED], 1)}
    table: list[tuple[str, ...]] = [_LAYER_HEADER]
    for index, row in enumerate(rows):
        steps = "-" if row.max_error_lsb is None else _steps(row.max_error_lsb)
        table.append(
            (
                row.value,
                row.op_type,
                row.module or "-",
                _error(row.max_error_over_range),
                _decibels(row.snr_db),
                steps,
                marks.get(index, ""),
            )
        )
    return "\n".join(_table(table))


def _stages(rows: Sequence[StageRow]) -> list[str]:
    first = next((row for row in rows if row.departs), None)
    table: list[tuple[str, ...]] = [("stage", "output", "error/range", "SNR dB", "")]
    for row in rows:
        mark = "<- departs here first" if row is first else ""
        error, snr = _error(row.max_error_over_range), _decibels(row.snr_db)
        table.append((row.stage, row.value, error, snr, mark))
    return _table(table)


def _row(verdict: Verdict) -> tuple[str, ...]:
    runner, kernels = verdict.runner_name, "-"
    if verdict.runner is not None:
        runner, kernels = f"{runner} {verdict.runner.version}", verdict.runner.kernels
    return (
        verdict.target,
        verdict.precision,
        runner,
        kernels,
        f"{verdict.bytes:,}" if verdict.bytes else "-",
        _conversion(verdict),
        _least(verdict, "snr_db", _decibels),
        _least(verdict, "cosine", _cosine),
        _least(verdict, "top1_agreement", _percent),
        "PASS" if verdict.passed else "FAIL",
    )


def _conversion(verdict: Verdict) -> str:
    """The conversion check that is nearest to its limit, or furthest beyond it."""
    checks = [c for c in verdict.checks if c.question is Question.CONVERSION]
    limited = [c for c in checks if c.limit is not None] or checks
    if not limited:
        return "-"
    worst = max(limited, key=lambda c: (not c.passed, _share_of_limit(c)))
    unit = " LSB" if worst.metric.endswith("_lsb") else ""
    limit = f" (<= {worst.limit:g})" if worst.limit is not None else ""
    told = [c for c in checks if c.metric in _TOLD and c is not worst]
    furthest = max(told, key=lambda c: _or_infinite(c.measured), default=None)
    output = f", output {_figure(furthest.metric, furthest.measured)}" if furthest else ""
    kind = _KINDS.get(worst.metric, "")
    return f"{kind}{_figure(worst.metric, worst.measured)}{unit}{limit}{output}"


def _share_of_limit(check: Check) -> float:
    return _or_infinite(check.measured / check.limit if check.limit else check.measured)


def _least(verdict: Verdict, metric: str, shown: Callable[[float], str]) -> str:
    values = [
        c.measured
        for c in verdict.checks
        if c.question is Question.QUANTIZATION and c.metric == metric
    ]
    if not values:
        return "-"
    return shown(math.nan if any(math.isnan(v) for v in values) else min(values))


def _machines(verdicts: Sequence[Verdict]) -> list[str]:
    """What ran, on which CPU, and how it took each artefact."""
    lines: list[str] = []
    told: dict[str, list[str]] = {}
    for verdict in verdicts:
        if verdict.runner is not None:
            details = told.setdefault(_runner_in_words(verdict.runner), [])
            items = sorted(verdict.runner.details.items())
            text = ", ".join(f"{key} {value}" for key, value in items)
            if text:
                details.append(f"  {verdict.target} {verdict.precision}: {text}")
    for runner, details in told.items():
        lines += [f"runner {runner}", *dict.fromkeys(details)]
    cpus = dict.fromkeys(v.runner.cpu for v in verdicts if v.runner is not None)
    return [*lines, *(f"cpu {text}" for text in cpus)]


def _runner_in_words(info: RunnerInfo) -> str:
    threads = f"{info.threads} thread{'s' if info.threads != 1 else ''}"
    return f"{info.name}: {info.runtime} {info.version}, {info.kernels}, {threads}"


def _details(verdict: Verdict, *, verbose: bool) -> list[str]:
    outcome = "PASS" if verdict.passed else "FAIL"
    name = f"{verdict.target} {verdict.precision} on {verdict.runner_name}"
    lines = [f"{outcome} {name} ({verdict.path})"]
    if verdict.error:
        lines += [f"  {line}" for line in verdict.error.splitlines()]
    elif not verdict.checks:
        lines.append("  nothing was compared")
    shown = [c for c in verdict.checks if verbose or not c.passed]
    lines += [f"  {_check_in_words(c, verdict.precision)}" for c in shown]
    for question, advice in _ADVICE.items():
        if any(c.question is question and not c.passed for c in verdict.checks):
            lines.append(f"  what to do about {question.value}: {advice}")
    return lines


def _check_in_words(check: Check, precision: str) -> str:
    outcome = "ok  " if check.passed else "FAIL"
    figure = _figure(check.metric, check.measured)
    kind = "value" if check.metric.startswith("layer_error") else "output"
    words = _WORDS.get(check.metric, check.metric)
    what = f"{check.question.value}, {kind} '{check.value}': {words}"
    unit = " dB" if check.metric == "snr_db" else ""
    words = f"{outcome} {what} {figure}{unit}"
    if check.limit is None:
        return f"{words} (told only)"
    name = check.metric
    if check.question is Question.QUANTIZATION and name == "max_error_over_range":
        name = "reference_error_over_range"
    bound = "at most" if check.at_most else "at least"
    return f"{words}; limit {bound} {check.limit:g} (--limit {precision}.{name}=...)"


def _figure(metric: str, value: float) -> str:
    if metric.endswith("_lsb"):
        return _steps(value)
    shown: dict[str, Callable[[float], str]] = {
        "snr_db": _decibels,
        "cosine": _cosine,
        "top1_agreement": _percent,
    }
    return shown.get(metric, _error)(value)


def _error(value: float) -> str:
    return "0" if value == 0 else f"{value:.1e}" if math.isfinite(value) else str(value)


def _steps(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if math.isfinite(value) else str(value)


def _decibels(value: float) -> str:
    return f"{round(value, 1) + 0.0:.1f}"  # no "-0.0"


def _cosine(value: float) -> str:
    return f"{value:.5f}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _or_infinite(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _paint(line: str, verdict: Verdict) -> str:
    word = "PASS" if verdict.passed else "FAIL"
    return line.removesuffix(word) + (_GREEN if verdict.passed else _RED) + word + _PLAIN
