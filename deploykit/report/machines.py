"""Each artefact over the machines that it ran on: agrees on all, or which one parts, and where."""

from __future__ import annotations

from collections.abc import Sequence

from deploykit.printable import printable_name
from deploykit.report.figures import format_figure, or_infinite
from deploykit.verdict import Check, Verdict


def machine_lines(verdicts: Sequence[Verdict]) -> list[str]:
    """A line for each artefact and machine that parts, worst first, then those that agree.

    Empty where everything ran on one kind of CPU: the table says it all.
    """
    if len({v.runner.cpu for v in verdicts if v.runner is not None}) < 2:
        return []
    parting = sorted((v for v in verdicts if not v.passed), key=_badness, reverse=True)
    lines = [f"{v.path} parts on {v.runner_name}: {_what(v)}" for v in parting]
    for path in dict.fromkeys(v.path for v in verdicts):
        own = [v for v in verdicts if v.path == path]
        if all(v.passed for v in own):
            cpus = len({v.runner.cpu for v in own if v.runner is not None})
            lines.append(f"{path} agrees on all: {len(own)} runners, {cpus} kinds of CPU")
    return lines


def _what(verdict: Verdict) -> str:
    if verdict.error:
        return verdict.error.partition("\n")[0]
    failed = [check for check in verdict.checks if not check.passed]
    if not failed:
        return "nothing was compared"
    worst = max(failed, key=_excess)
    figure = format_figure(worst.metric, worst.measured)
    return f"'{printable_name(worst.value)}' {worst.metric} {figure} (limit {worst.limit:g})"


def _badness(verdict: Verdict) -> float:
    """A runner that did not answer is the worst; then by how far a figure is beyond its limit."""
    if verdict.error or not verdict.checks:
        return float("inf")
    return max(_excess(check) for check in verdict.checks if not check.passed)


def _excess(check: Check) -> float:
    """How many times a figure is beyond its limit."""
    limit = check.limit or 0.0
    if check.at_most:
        return or_infinite(check.measured / limit) if limit else float("inf")
    return or_infinite(limit - check.measured)
