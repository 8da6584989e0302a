"""The views of an accuracy table: terminal and JSON."""

from __future__ import annotations

import json
from dataclasses import asdict

from deploykit.report.figures import as_percent
from deploykit.report.verdict_table import aligned
from deploykit.verdict import AccuracyRow, AccuracyTable

_HEADER = ("artefact", "precision", "runner", "bytes", "top-1", "top-5", "vs ref", "agree", "img/s")


def accuracy_to_json(table: AccuracyTable) -> str:
    """As JSON text."""
    rows = [{**asdict(r), "top1": r.top1, "top5": r.top5, "outcome": r.outcome} for r in table.rows]
    document = {"schema": "deploykit.accuracy/1", "classes": table.classes, "rows": rows}
    return json.dumps(document, indent=1)


def render_accuracy(table: AccuracyTable, *, width: int | None = None) -> str:
    """As a table for a terminal, without precision and size where it is narrow."""
    reference = table.reference
    header, rows = accuracy_rows(table)
    lines = aligned([header, *rows])
    if width is not None and max(map(len, lines)) > width:
        lines = aligned([_narrow(cells) for cells in (header, *rows)])
    lines.append(f"{table.rows[0].total:,} images")
    for row in table.rows:
        if row.changes:
            told = ", ".join(
                f"{c.before} → {c.after} {c.images} ({c.mended} of them right)" for c in row.changes
            )
            lines.append(f"named otherwise by {row.what} on {row.runner}: {told}")
    if reference is None:
        lines.append("no reference: give the source model with --source to have it beside")
    if table.near_chance:
        lines.append(
            "warning: the float reference itself is near chance: is the architecture, the "
            "preprocessing or the order of the labels another? Agreement is not verified"
        )
    return "\n".join(lines)


def accuracy_rows(table: AccuracyTable) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows; with a column of verdicts if there are any."""
    reference, verified = table.reference, any(row.outcome for row in table.rows)
    header = (*_HEADER, "verdict") if verified else _HEADER
    return header, [_cells(row, reference, verified=verified) for row in table.rows]


def _cells(row: AccuracyRow, reference: AccuracyRow | None, *, verified: bool) -> tuple[str, ...]:
    against = agree = "-"
    if reference is not None and row is not reference:
        against = f"{100 * (row.top1 - reference.top1):+.2f}"
        agree = as_percent(row.agreement or 0)
    five = "-" if row.top5 is None else f"{100 * row.top5:.2f} %"
    speed = f"{row.images_per_s:,.0f}" if row.images_per_s else "-"
    cells = (row.what, row.precision, row.runner, f"{row.bytes:,}", f"{100 * row.top1:.2f} %")
    end = (row.outcome.upper() or "-",) if verified else ()
    return (*cells, five, against, agree, speed, *end)


def _narrow(cells: tuple[str, ...]) -> tuple[str, ...]:
    return (cells[0], cells[2], cells[4], *cells[6:8], *cells[9:])
