"""Views of results for notebooks: an HTML table, and a pandas DataFrame.

A `Report` and an `AccuracyTable` call these, so their types are not imported here: no two files
import each other.
"""

from __future__ import annotations

import math
from typing import Any

from deploykit.errors import MissingDependencyError
from deploykit.report.figures import as_cosine, as_decibels, as_percent, format_figure
from deploykit.report.html import element, joined, table

_NOISE = {"snr_db": as_decibels, "cosine": as_cosine, "top1_agreement": as_percent}
_HEADER = ("target", "precision", "runner", "size", "SNR dB", "cosine", "top-1", "verdict")


def report_html(report: Any) -> str:
    """The verdicts as a table, then the checks that failed or warn, then the warnings."""
    rows = [
        (
            *(verdict.target, verdict.precision, verdict.runner_name, f"{verdict.bytes:,}"),
            *(_least(verdict, metric) for metric in _NOISE),
            verdict.outcome.upper(),
        )
        for verdict in report.verdicts
    ]
    title = f"{report.model}, against {report.reference or 'nothing (not verified)'}"
    notes = [
        f"{'WARN' if check.passed else 'FAIL'} {verdict.path} on {verdict.runner_name}: "
        f"{check.metric} {format_figure(check.metric, check.measured)}"
        for verdict in report.verdicts
        for check in verdict.checks
        if check.warned or not check.passed
    ]
    notes += [f"{v.path} on {v.runner_name}: {v.error}" for v in report.verdicts if v.error]
    notes += [f"{s.target} {s.precision}: {s.reason}" for s in report.skipped]
    notes += [f"warning: {text}" for text in report.warnings]
    lines = [element("li", text) for text in notes]
    parts = [element("p", title), table(_HEADER, rows, caption="verdicts", left=3)]
    return str(joined([*parts, *([element("ul", *lines)] if lines else [])]))


def accuracy_html(accuracy: Any) -> str:
    """The accuracy of each artefact as a table."""
    rows = [
        (
            *(row.what, row.precision, row.runner, f"{row.bytes:,}", f"{row.top1:.2%}"),
            "-" if row.top5 is None else f"{row.top5:.2%}",
            "-" if row.agreement is None else f"{row.agreement:.1%}",
            row.outcome.upper() or "-",
        )
        for row in accuracy.rows
    ]
    header = ("artefact", "precision", "runner", "bytes", "top-1", "top-5", "agree", "verdict")
    return str(table(header, rows, caption="accuracy", left=3))


def report_frame(report: Any) -> Any:
    """A pandas DataFrame: a row a verdict, a column a figure.

    A figure that several outputs have is named ``METRIC:OUTPUT``; one that is missing is NaN.

    Raises:
        MissingDependencyError: pandas is not installed.
    """
    return _frame(
        [
            {
                "model": report.model,
                "target": verdict.target,
                "precision": verdict.precision,
                "path": verdict.path,
                "runner": verdict.runner_name,
                "bytes": verdict.bytes,
                "samples": verdict.samples,
                "outcome": verdict.outcome,
                **_figures(verdict),
            }
            for verdict in report.verdicts
        ]
    )


def accuracy_frame(accuracy: Any) -> Any:
    """A pandas DataFrame: a row an artefact and runner, shares as numbers from 0 to 1.

    Raises:
        MissingDependencyError: pandas is not installed.
    """
    return _frame(
        [
            {
                "artefact": row.what,
                "precision": row.precision,
                "runner": row.runner,
                "bytes": row.bytes,
                "images": row.total,
                "top1": row.top1,
                "top5": math.nan if row.top5 is None else row.top5,
                "agreement": math.nan if row.agreement is None else row.agreement,
                "images_per_s": row.images_per_s,
                "outcome": row.outcome,
            }
            for row in accuracy.rows
        ]
    )


def _frame(rows: list[dict[str, Any]]) -> Any:
    try:
        import pandas
    except ImportError as error:
        raise MissingDependencyError("pandas", needed_for="to_frame()", extra="notebook") from error
    return pandas.DataFrame(rows)


def _figures(verdict: Any) -> dict[str, float]:
    metrics = [check.metric for check in verdict.checks]
    return {
        check.metric if metrics.count(check.metric) == 1 else f"{check.metric}:{check.value}": (
            check.measured
        )
        for check in verdict.checks
    }


def _least(verdict: Any, metric: str) -> str:
    values = [check.measured for check in verdict.checks if check.metric == metric]
    if not values:
        return "-"
    return _NOISE[metric](math.nan if any(map(math.isnan, values)) else min(values))
