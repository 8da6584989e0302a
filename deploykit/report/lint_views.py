"""A lint report as text for a terminal, and as JSON."""

from __future__ import annotations

import json

from deploykit.lint.finding import Finding, LintReport, Severity
from deploykit.lint.rule import RULES
from deploykit.printable import printable_line, printable_name

SCHEMA = 1
#: Findings of one rule that are shown without ``--all``.
SHOWN = 5


def render_lint(report: LintReport, *, everything: bool = False) -> str:
    """Findings by rule, without a newline at the end.

    Args:
        report: What to show.
        everything: All findings of each rule, not the first few.
    """
    target = f" on {report.target}" if report.target else ""
    lines = [f"model: {report.model}   for {', '.join(report.precisions)}{target}"]
    by_rule: dict[str, list[Finding]] = {}
    for finding in report.findings:
        by_rule.setdefault(finding.rule, []).append(finding)
    for name, findings in by_rule.items():
        lines += ["", f"{name}: {RULES[name].text}"]
        shown = findings if everything else findings[:SHOWN]
        last = ""
        for finding in shown:
            said = f"{printable_name(finding.layer)}: {printable_line(finding.message)}"
            lines.append(f"  {finding.severity.value:<7}  {said}")
            if finding.advice != last:
                lines.append(f"           what to do: {printable_line(finding.advice)}")
            last = finding.advice
        if len(shown) < len(findings):
            lines.append(f"           ... and {len(findings) - len(shown)} more (--all)")
    counts = [f"{report.count(s)} {s.value}" for s in reversed(Severity)]
    lines += ["", f"{len(report.findings)} findings: {', '.join(counts)}"]
    if report.uncounted:
        lines.append(f"{report.uncounted}; no rule that weighs cost has seen them")
    return "\n".join(lines)


def lint_to_json(report: LintReport) -> str:
    """The report as indented JSON with sorted keys, without a newline at its end."""
    data = {
        "schema": SCHEMA,
        "model": report.model,
        "precisions": list(report.precisions),
        "target": report.target,
        "uncounted": report.uncounted,
        "counts": {severity.value: report.count(severity) for severity in Severity},
        "findings": [
            {
                "rule": f.rule,
                "severity": f.severity.value,
                "layer": f.layer,
                "value": f.value_name,
                "measure": f.measure,
                "number": f.number,
                "bound": f.bound,
                "share": f.share,
                "message": f.message,
                "advice": f.advice,
            }
            for f in report.findings
        ],
    }
    return json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False)
