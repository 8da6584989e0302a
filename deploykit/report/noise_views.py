"""A noise report as text for a terminal, and as JSON."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict

from deploykit.noise import VALUE, NoiseReport, NoiseSource
from deploykit.printable import printable_name

SCHEMA = "deploykit.noise/1"
#: Sources that are shown without ``--all``.
SHOWN = 12


def noise_to_json(report: NoiseReport) -> str:
    """The report as indented JSON, without a newline at its end."""
    return json.dumps({"schema": SCHEMA, **asdict(report)}, indent=1, allow_nan=False)


def render_noise(report: NoiseReport, *, everything: bool = False) -> str:
    """The report in words and tables of at most 80 columns.

    Args:
        report: What to show.
        everything: Every source, not the largest ones.
    """
    apart = "nothing was fitted to them" if report.held_out else "some of them calibrated"
    model = printable_name(report.model)
    head = f"model: {model}   target: {report.target}   int8 by {report.method}"
    weights, values = _part(report, values=False), _part(report, values=True)
    worst = f"worst sample {report.worst_db:.1f} dB, {report.worst_share:.0%} of the noise"
    lines = [
        f"{head}   samples: {report.samples} ({apart})",
        f"outputs against the float model: {report.snr_db:.1f} dB; {worst}",
        f"weights make {weights:.0%} of the noise, values {values:.0%}",
        "",
        "share   alone     what is rounded",
    ]
    shown = report.sources if everything else report.sources[:SHOWN]
    for source in shown:
        lines.append(f"{source.share:5.1%}  {source.snr_db:6.1f} dB  {_named(source)}")
    if len(shown) < len(report.sources):
        rest = sum(source.share for source in report.sources[len(shown) :])
        lines.append(f"{rest:5.1%}             {len(report.sources) - len(shown)} more (--all)")
    if report.curve:
        lines += ["", *_curve(report)]
    if report.methods:
        lines += ["", "method        pooled    median    top-1 agreement  CPU s"]
        for row in report.methods:
            lines.append(
                f"{row.method:<12}{row.snr_db:6.1f} dB {row.median_db:6.1f} dB  "
                f"{_agreement(row.agreement):>15}  {row.seconds:5.1f}"
            )
    return "\n".join(lines)


def _part(report: NoiseReport, *, values: bool) -> float:
    return sum(s.share for s in report.sources if (s.kind == VALUE) == values)


def _named(source: NoiseSource) -> str:
    what = "value" if source.kind == VALUE else f"weights of {source.op_type}"
    place = [printable_name(text) for text in (source.module, source.source) if text]
    return f"{what} {printable_name(source.name)}" + (f" ({', '.join(place)})" if place else "")


def _agreement(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _curve(report: NoiseReport) -> list[str]:
    lines = ["layers in floats   their mult-adds   pooled    median    top-1 agreement"]
    for point in report.curve:
        lines.append(
            f"{point.layers:>16}   {point.float_share:>15.1%}  {point.snr_db:6.1f} dB "
            f"{point.median_db:6.1f} dB  {_agreement(point.agreement):>15}"
        )
    if not report.meets_budget:
        return [*lines, f"no number of layers in floats reaches {report.budget_db:g} dB"]
    if not report.keep_float:
        return [*lines, f"int8 reaches {report.budget_db:g} dB as it is"]
    flags = " ".join(
        f"--keep-float {shlex.quote(printable_name(name))}" for name in report.keep_float
    )
    return [*lines, f"what to do: deploykit convert MODEL --to {report.target} --int8 {flags}"]
