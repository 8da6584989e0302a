"""Verdicts as one self-contained HTML page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from deploykit.report.accuracy_views import accuracy_rows
from deploykit.report.figures import as_decibels, as_error
from deploykit.report.html import SERIES, Content, Markup, element, joined, page, table
from deploykit.report.terminal import runner_lines, tensor_lines, verdict_details
from deploykit.report.verdict_table import noise_limits, verdict_rows
from deploykit.verdict import AccuracyTable, LayerRow, Report, Verdict

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 960, 300, 56, 26
_SMALLEST = 1e-8


@dataclass(frozen=True)
class MadeBy:
    """What a page says of its making.

    Attributes:
        command: The command line; empty if it was none.
        files: Path, size in bytes and SHA-256 of each artefact.
    """

    command: str = ""
    files: tuple[tuple[str, int, str], ...] = ()


def report_to_html(report: Report, made_by: MadeBy) -> str:
    """The page: verdicts, what failed, what an app gives and gets, errors by layer, files."""
    outcome = "failed" if not report.passed else "passed, with warnings" if report.warned else ""
    content: list[Content] = [
        element("h1", f"{report.model}: {outcome or 'passed'}"),
        element("p", f"Against {report.reference}", attributes={"class": "quiet"}),
        _verdicts(report),
        _lines(noise_limits(report.verdicts)),
    ]
    odd = [v for v in report.verdicts if not v.passed or v.warned]
    told = [line for v in odd for line in verdict_details(v)]
    told += [f"left out: {s.target} {s.precision}: {s.reason}" for s in report.skipped]
    told += [f"FAIL: {words}" for words in report.failed_before]
    told += [f"warning: {words}" for words in report.warnings]
    content += _section("What to look at", [_lines(told)] if told else [])
    uses = tensor_lines(report.tensors)
    content += _section("Inputs and outputs", [_lines(uses)] if uses else [])
    content += _section("Error by layer", _layer_plots(report.verdicts))
    if report.stages:
        rows = [
            (s.stage, s.value, as_error(s.max_error_over_range), as_decibels(s.snr_db))
            for s in report.stages
        ]
        header = ("stage", "output", "error/range", "SNR dB")
        content += _section("Stages", [table(header, rows, caption="stages", left=2)])
    content += _section("Runtimes", [_lines(runner_lines(report.verdicts))])
    return page(f"{report.model}: verdict", *content, *_made(made_by))


def accuracy_to_html(accuracy: AccuracyTable, made_by: MadeBy) -> str:
    """The page of an evaluation."""
    header, rows = accuracy_rows(accuracy)
    content = [
        element("h1", "Accuracy"),
        element("p", f"{accuracy.rows[0].total:,} images", attributes={"class": "quiet"}),
        table(header, rows, caption="accuracy", left=3),
    ]
    return page("accuracy", *content, *_made(made_by))


def _verdicts(report: Report) -> Markup:
    """The table with its last column, the verdict, first: a phone shows the left of it."""
    header, rows = verdict_rows(report)
    header, *rows = ((row[-1], *row[:-1]) for row in (header, *rows))
    return table(header, rows, caption="verdicts", left=5)


def _section(title: str, content: Sequence[Content]) -> list[Content]:
    return [element("h2", title), *content] if content else []


def _made(made_by: MadeBy) -> list[Content]:
    rows = [(path, f"{size:,}", digest) for path, size, digest in made_by.files]
    files = [table(("file", "bytes", "SHA-256"), rows, caption="files")] if rows else []
    command = [_lines([made_by.command])] if made_by.command else []
    return [*_section("Files", files), *_section("Command", command)]


def _lines(lines: Sequence[str]) -> Markup:
    """Lines of a terminal, in a region that scrolls by itself."""
    attributes = {"class": "scroll lines"}
    named = attributes | {"tabindex": "0", "role": "region", "aria-label": "details"}
    return element("pre", "\n".join(lines), attributes=named) if lines else Markup("")


def _layer_plots(verdicts: Sequence[Verdict]) -> list[Content]:
    compared = [verdict for verdict in verdicts if verdict.layers]
    found: list[Content] = []
    for index, verdict in enumerate(compared):
        name = f"{verdict.path} on {verdict.runner_name}"
        caption = f"{name}: largest error of each value over its range, in the order of the graph"
        plot = _plot(verdict.layers, index % SERIES, caption)
        found.append(element("figure", plot, element("figcaption", caption)))
    return found


def _plot(rows: Sequence[LayerRow], series: int, caption: str) -> Markup:
    """Errors on a logarithmic scale from 1e-8 to 1; what is no number stands at the top."""
    decades = round(-math.log10(_SMALLEST))

    def height(error: float) -> float:
        clipped = min(max(error, _SMALLEST), 1.0) if math.isfinite(error) else 1.0
        return 12 - math.log10(clipped) * (_HEIGHT - _BOTTOM - 12) / decades

    parts: list[Content] = []
    for power in range(0, decades + 1, 2):
        y = height(10.0**-power)
        ends: dict[str, str | float] = {"x1": _LEFT, "x2": _WIDTH, "y1": y, "y2": y}
        parts.append(element("line", attributes={"class": "grid", **ends}))
        parts.append(element("text", f"1e-{power}", attributes={"x": 8, "y": y + 4}))
    step = (_WIDTH - _LEFT - 16) / max(len(rows) - 1, 1)
    for index, row in enumerate(rows):
        place: dict[str, str | float] = {
            "cx": _LEFT + 8 + step * index,
            "cy": height(row.max_error_over_range),
        }
        words = f"{row.value} ({row.op_type}): {as_error(row.max_error_over_range)}"
        title = element("title", f"{words}, SNR {as_decibels(row.snr_db)} dB")
        parts.append(element("circle", title, attributes={"class": f"s{series}", "r": 3, **place}))
    box = {"class": "chart", "viewBox": f"0 0 {_WIDTH} {_HEIGHT}", "role": "img"}
    return element("svg", joined(parts), attributes={**box, "aria-label": caption})
