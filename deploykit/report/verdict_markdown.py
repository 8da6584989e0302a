"""Verdicts as a Markdown table, for a comment on a merge request."""

from __future__ import annotations

import re
from collections.abc import Sequence

from deploykit.printable import printable_line, printable_name
from deploykit.report.accuracy_views import accuracy_rows
from deploykit.report.terminal import verdict_details
from deploykit.report.verdict_table import noise_limits, verdict_rows
from deploykit.verdict import AccuracyTable, Report

#: What Markdown or the HTML in it would take for its own; an @ would notify somebody.
_SPECIAL = re.compile(r"[\\`*_{}\[\]()<>#|~!@&$]")


def report_to_markdown(report: Report) -> str:
    """The table of verdicts, its limits, what failed or warns and why."""
    outcome = "failed" if not report.passed else "passed, with warnings" if report.warned else ""
    lines = [f"### deploykit: {_text(report.model)} {outcome or 'passed'}", ""]
    lines += [f"Reference: {_text(report.reference)}", "", *_table(*verdict_rows(report))]
    lines += ["", *(f"- {_text(line)}" for line in noise_limits(report.verdicts))]
    for verdict in report.verdicts:
        if not verdict.passed or verdict.warned:
            lines += ["", *(f"    {printable_line(line)}" for line in verdict_details(verdict))]
    notes = [f"left out: {s.target} {s.precision}: {s.reason}" for s in report.skipped]
    notes += [f"FAIL: {words}" for words in report.failed_before]
    notes += [f"warning: {words}" for words in report.warnings]
    return "\n".join([*lines, "", *(f"- {_text(note)}" for note in notes)]).rstrip() + "\n"


def accuracy_to_markdown(table: AccuracyTable) -> str:
    """The table of accuracy."""
    header, rows = accuracy_rows(table)
    lines = ["### deploykit: accuracy", "", *_table(header, rows), ""]
    return "\n".join([*lines, f"{table.rows[0].total:,} images"]) + "\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *([_cell(c) for c in row] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def _cell(text: str) -> str:
    return _escaped(printable_name(text))


def _text(text: str) -> str:
    return _escaped(printable_line(text))


def _escaped(text: str) -> str:
    return _SPECIAL.sub(lambda match: f"\\{match.group()}", text)
