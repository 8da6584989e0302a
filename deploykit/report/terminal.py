"""The report as text for a terminal: one row a verdict, and below it what failed and what to do."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from deploykit.interface import TensorUse
from deploykit.printable import printable_name, printable_row
from deploykit.report.figures import (
    as_decibels,
    as_error,
    as_steps,
    format_figure,
    or_infinite,
)
from deploykit.report.machines import machine_lines
from deploykit.report.verdict_table import aligned, noise_limits, render_verdicts
from deploykit.runners.base import RunnerInfo
from deploykit.verdict import Check, LayerRow, Question, Report, SkippedTarget, StageRow, Verdict

_LAYER_HEADER = ("value", "op", "module", "error/range", "SNR dB", "LSB", "")
_WORST_MARKED = 3
_WORDS = {
    "max_error_over_range": "largest error over the value's range",
    "max_error_lsb": "largest error in output steps",
    "snr_loss_db": "signal to noise below the quantized stage's",
    "top1_loss": "top-1 agreement below the quantized stage's",
    "output_error_lsb": "largest error in output steps",
    "output_error_over_range": "largest error over the output's range",
    "repeat_error_lsb": "largest difference to this runner's earlier run, in output steps",
    "layer_error_lsb": "largest error of a layer by itself, in its own steps",
    "repeat_error_over_range": "largest difference to this runner's earlier run, over the range",
    "layer_error_over_range": "largest error of a layer by itself, over its own range",
    "cpu_op_share": "operators left to the CPU",
    "snr_db": "signal to noise",
    "cosine": "cosine of the worst sample",
    "top1_agreement": "top-1 agreement",
    "clear_top1_agreement": "top-1 agreement where the reference's margin exceeds the noise",
}
_ADVICE = {
    Question.CONVERSION: (
        "run again with --layers: the first value that diverges names the layer; if another runner "
        "passes, it is this runtime's kernels"
    ),
    Question.QUANTIZATION: (
        "deploykit analyze MODEL, with the same --calibrate, says which layers lose how much, and "
        "what to keep in floats (--keep-float); calibrate with more data that is like what the "
        "model will see; or keep a higher precision"
    ),
}


def render_report(
    report: Report, *, verbose: bool = False, color: bool = False, width: int | None = None
) -> str:
    """The report as a table and, where a verdict failed, what failed and what to do.

    Args:
        report: What to show.
        verbose: Every check, also of verdicts that passed.
        color: Whether to paint the verdicts (ANSI codes).
        width: Columns of the terminal; None for no limit.

    Returns:
        Text without a newline at its end.
    """
    counts = sorted({v.samples for v in report.verdicts if v.samples})
    samples = f"   samples: {', '.join(map(str, counts))}" if counts else ""
    lines = [f"model: {report.model}   reference: {report.reference}{samples}", ""]
    lines += render_verdicts(report.verdicts, report.skipped, width=width, color=color)
    below: list[str] = []
    below += noise_limits(report.verdicts)
    if parting := machine_lines(report.verdicts):
        below += ["", *parting]
    if machines := runner_lines(report.verdicts):
        below += ["", *machines]
    for verdict in report.verdicts:
        if verbose or not verdict.passed or verdict.warned:
            below += ["", *verdict_details(verdict, verbose=verbose)]
    if report.tensors:
        below += ["", *tensor_lines(report.tensors)]
    if report.stages:
        below += ["", "stages against the float reference", *_stages(report.stages)]
    if report.skipped:
        below += ["", *_skipped(report.skipped)]
    if report.failed_before:
        below += ["", *(f"FAIL: {words}" for words in report.failed_before)]
    if report.warnings:
        below += ["", *(f"warning: {warning}" for warning in report.warnings)]
    return "\n".join([*lines, *(w for line in below for w in _wrapped(line, width))]).rstrip()


def _wrapped(line: str, width: int | None) -> list[str]:
    """A line as lines of that many columns; the second and later ones are indented deeper."""
    if width is None or len(line) <= width:
        return [line]
    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.wrap(
        line,
        width,
        subsequent_indent=f"{indent}    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def tensor_lines(uses: Sequence[TensorUse]) -> list[str]:
    """What an app gives each artefact and gets of it."""
    lines: list[str] = []
    for path in dict.fromkeys(use.path for use in uses):
        lines.append(path)
        lines += [f"  {use.describe()}" for use in uses if use.path == path]
    return lines


def render_layers(rows: Sequence[LayerRow]) -> str:
    """Values in the order of the graph; the three with the largest error are marked, worst first.

    A value whose shapes differ between artefact and stage has ``nan`` and counts as the worst.
    """
    errors = [or_infinite(row.max_error_over_range) for row in rows]
    ranked = sorted((i for i, e in enumerate(errors) if e > 0), key=lambda i: (-errors[i], i))
    marks = {index: f"<- worst {place}" for place, index in enumerate(ranked[:_WORST_MARKED], 1)}
    table: list[tuple[str, ...]] = [_LAYER_HEADER]
    for index, row in enumerate(rows):
        steps = "-" if row.max_error_lsb is None else as_steps(row.max_error_lsb)
        table.append(
            (
                row.value,
                row.op_type,
                row.module or "-",
                as_error(row.max_error_over_range),
                as_decibels(row.snr_db),
                steps,
                marks.get(index, ""),
            )
        )
    return "\n".join(aligned([printable_row(row) for row in table]))


def _stages(rows: Sequence[StageRow]) -> list[str]:
    first = next((row for row in rows if row.diverges), None)
    table: list[tuple[str, ...]] = [("stage", "output", "error/range", "SNR dB", "")]
    for row in rows:
        mark = "<- diverges here first" if row is first else ""
        error, snr = as_error(row.max_error_over_range), as_decibels(row.snr_db)
        table.append((row.stage, row.value, error, snr, mark))
    return aligned([printable_row(row) for row in table])


def _skipped(entries: Iterable[SkippedTarget]) -> list[str]:
    """One paragraph a target and reason, with the precisions that it is of."""
    precisions: dict[tuple[str, str], list[str]] = {}
    for entry in entries:
        precisions.setdefault((entry.target, entry.reason), []).append(entry.precision)
    lines = []
    for (target, reason), names in precisions.items():
        what = f"{target} {', '.join(names)}".strip()
        lines += f"left out: {what}: {reason}".splitlines()
    return lines


def runner_lines(verdicts: Sequence[Verdict]) -> list[str]:
    """What ran, on which CPU, and how it took each artefact."""
    lines: list[str] = []
    told: dict[str, list[str]] = {}
    for verdict in verdicts:
        if verdict.runner is not None:
            details = told.setdefault(_format_runner(verdict.runner), [])
            items = sorted(verdict.runner.details.items())
            text = ", ".join(f"{key} {value}" for key, value in items)
            if text:
                details.append(f"  {verdict.target} {verdict.precision}: {text}")
    for runner, details in told.items():
        lines += [f"runner {runner}", *dict.fromkeys(details)]
    cpus = dict.fromkeys(v.runner.cpu for v in verdicts if v.runner is not None)
    return [*lines, *(f"cpu {text}" for text in cpus)]


def _format_runner(info: RunnerInfo) -> str:
    threads = f"{info.threads} thread{'s' if info.threads != 1 else ''}"
    return f"{info.name}: {info.runtime} {info.version}, {info.kernels}, {threads}"


def verdict_details(verdict: Verdict, *, verbose: bool = False) -> list[str]:
    """A verdict in words: its failed and warning checks (or every one), and what to do."""
    name = f"{verdict.target} {verdict.precision} on {verdict.runner_name}"
    lines = [f"{verdict.outcome.upper()} {name} ({verdict.path})"]
    if verdict.error:
        lines += [f"  {line}" for line in verdict.error.splitlines()]
    elif not verdict.checks:
        lines.append("  nothing was compared")
    shown = [c for c in verdict.checks if verbose or not c.passed or c.warned]
    lines += [f"  {_format_check(c, verdict.precision)}" for c in shown]
    for question, advice in _ADVICE.items():
        if any(c.question is question and (not c.passed or c.warned) for c in verdict.checks):
            lines.append(f"  what to do about {question.value}: {advice}")
    return lines


def _format_check(check: Check, precision: str) -> str:
    outcome = "FAIL" if not check.passed else "WARN" if check.warned else "ok  "
    figure = format_figure(check.metric, check.measured)
    kind = "value" if check.metric.startswith("layer_error") else "output"
    kind = "hardware" if check.metric == "cpu_op_share" else kind
    words = _WORDS.get(check.metric, check.metric)
    what = f"{check.question.value}, {kind} '{printable_name(check.value)}': {words}"
    unit = " dB" if check.metric == "snr_db" else ""
    words = f"{outcome} {what} {figure}{unit}{_confidence(check)}"
    if check.limit is None and check.warn_limit is None:
        return f"{words} (told only)"
    name = check.metric
    if check.question is Question.QUANTIZATION and name == "max_error_over_range":
        name = "reference_error_over_range"
    bound = "at most" if check.at_most else "at least"
    limits = []
    if check.limit is not None:
        limits.append(f"limit {bound} {check.limit:g} (--limit {precision}.{name}=...)")
    if check.warn_limit is not None and not (check.passed and not check.warned):
        limits.append(
            f"warns unless {bound} {check.warn_limit:g} (--limit {precision}.warn_{name}=...)"
        )
    return "; ".join([words, *limits])


def _confidence(check: Check) -> str:
    """Of a share of samples: how many, and its 95 % confidence interval."""
    if check.interval is None:
        return ""
    low, high = check.interval
    return f" of {check.samples} samples (95 % interval {100 * low:.1f} to {100 * high:.1f} %)"
