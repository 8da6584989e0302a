"""The views of an accuracy table: terminal and JSON."""

from __future__ import annotations

import json
from dataclasses import asdict

from deploykit.verdict import AccuracyTable

_HEADER = (
    f"{'artefact':<28} {'precision':<9} {'runner':<18} {'bytes':>10} {'top-1':>8} "
    f"{'vs ref':>8} {'agree':>7}"
)


def accuracy_to_json(table: AccuracyTable) -> str:
    """As JSON text."""
    rows = [{**asdict(r), "top1": r.top1} for r in table.rows]
    return json.dumps({"schema": "deploykit.accuracy/1", "rows": rows}, indent=1)


def render_accuracy(table: AccuracyTable) -> str:
    """As a table for a terminal."""
    lines = [_HEADER]
    reference = table.reference
    for row in table.rows:
        against = agree = "-"
        if reference is not None and row is not reference:
            against = f"{100 * (row.top1 - reference.top1):+.2f}"
            agree = f"{100 * (row.agreement or 0):.1f} %"
        lines.append(
            f"{row.what:<28} {row.precision:<9} {row.runner:<18} {row.bytes:>10,} "
            f"{100 * row.top1:>6.2f} % {against:>8} {agree:>7}"
        )
    lines.append(f"{table.rows[0].total:,} images")
    if reference is None:
        lines.append("no reference: give the source model with --source to have it beside")
    return "\n".join(lines)
