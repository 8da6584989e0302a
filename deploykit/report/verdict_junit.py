"""Verdicts as JUnit XML, in the form that pytest writes and CI systems read.

A verdict is a test case: a figure beyond its limit is a ``failure``, a runtime that did not answer
and a target that refuses the model an ``error``, what cannot be written here ``skipped``.
"""

from __future__ import annotations

from xml.etree import ElementTree

from deploykit.printable import printable_line, printable_text
from deploykit.report.terminal import verdict_details
from deploykit.verdict import AccuracyRow, AccuracyTable, Report, SkippedTarget, Verdict

#: What `printable` leaves and XML 1.0 forbids.
_NO_XML = {0xFFFE: "\\ufffe", 0xFFFF: "\\uffff"}


def report_to_junit(report: Report, *, fail_on_warning: bool = False) -> str:
    """A test case for each verdict, target left out, and failure of the bundle's own conversion."""
    cases = [_verdict_case(report.model, v, fail_on_warning) for v in report.verdicts]
    cases += [_skipped_case(report.model, entry) for entry in report.skipped]
    for words in report.failed_before:
        case = _case(f"{report.model}.conversion", words)
        cases.append(_with_result(case, "failure", "failed when the bundle was made", words))
    return _document(f"deploykit {report.model}", cases)


def accuracy_to_junit(table: AccuracyTable, *, fail_on_warning: bool = False) -> str:
    """A test case for each row but the reference's."""
    rows = [row for row in table.rows if row.what != "reference"]
    return _document("deploykit evaluate", [_row_case(row, fail_on_warning) for row in rows])


def _verdict_case(model: str, verdict: Verdict, fail_on_warning: bool) -> ElementTree.Element:
    name = f"{verdict.path} on {verdict.runner_name}"
    case = _case(f"{model}.{verdict.target}.{verdict.precision}", name)
    lines = verdict_details(verdict, verbose=True)
    if verdict.error:
        return _with_result(case, "error", verdict.error, "\n".join(lines))
    if not verdict.passed or (fail_on_warning and verdict.warned):
        shown = [line for line in lines[1:] if line.lstrip().startswith(("FAIL", "WARN"))]
        return _with_result(case, "failure", (shown or lines)[0].strip(), "\n".join(lines))
    ElementTree.SubElement(case, "system-out").text = _xml_text("\n".join(lines))
    return case


def _skipped_case(model: str, entry: SkippedTarget) -> ElementTree.Element:
    case = _case(f"{model}.{entry.target}", entry.precision or "every precision")
    return _with_result(case, "error" if entry.refused else "skipped", entry.reason, entry.reason)


def _row_case(row: AccuracyRow, fail_on_warning: bool) -> ElementTree.Element:
    case = _case(f"evaluate.{row.precision}", f"{row.what} on {row.runner}")
    words = f"top-1 {row.top1:.2%} of {row.total:,} images"
    if row.agreement is not None:
        words += f", {row.agreement:.1%} named as by the reference"
    if row.outcome == "fail" or (fail_on_warning and row.outcome == "warn"):
        return _with_result(case, "failure", words, words)
    ElementTree.SubElement(case, "system-out").text = _xml_text(words)
    return case


def _case(group: str, name: str) -> ElementTree.Element:
    attributes = {"classname": _xml_line(group), "name": _xml_line(name), "time": "0"}
    return ElementTree.Element("testcase", attributes)


def _with_result(
    case: ElementTree.Element, kind: str, message: str, text: str
) -> ElementTree.Element:
    found = ElementTree.SubElement(case, kind, {"message": _xml_line(message)})
    found.text = _xml_text(text)
    return case


def _document(name: str, cases: list[ElementTree.Element]) -> str:
    counts = {"tests": str(len(cases)), "time": "0"}
    for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        counts[attribute] = str(sum(case.find(tag) is not None for case in cases))
    root = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(root, "testsuite", {"name": _xml_line(name), **counts})
    suite.extend(cases)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=False).join(
        ('<?xml version="1.0" encoding="utf-8"?>\n', "\n")
    )


def _xml_line(text: str) -> str:
    return printable_line(text).translate(_NO_XML)


def _xml_text(text: str) -> str:
    return printable_text(text).translate(_NO_XML)
