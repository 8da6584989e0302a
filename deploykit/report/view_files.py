"""The table of views: every form in which a command writes its result to a file.

A command with results of another kind joins by a column: its functions beside the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from deploykit.report.verdict_html import MadeBy, accuracy_to_html, report_to_html
from deploykit.report.verdict_junit import accuracy_to_junit, report_to_junit
from deploykit.report.verdict_markdown import accuracy_to_markdown, report_to_markdown
from deploykit.verdict import AccuracyTable, Report


@dataclass(frozen=True)
class ViewRequest:
    """What a view may need beside the result.

    Attributes:
        fail_on_warning: Whether a warning is a failure.
        made_by: The command and the files.
    """

    fail_on_warning: bool = False
    made_by: MadeBy = field(default_factory=MadeBy)


@dataclass(frozen=True)
class FileView:
    """One form: how it writes a `Report` and an `AccuracyTable`."""

    report: Callable[[Report, ViewRequest], str]
    accuracy: Callable[[AccuracyTable, ViewRequest], str]

    def render(self, result: Report | AccuracyTable, request: ViewRequest) -> str:
        """The result as the text of a file."""
        if isinstance(result, Report):
            return self.report(result, request)
        return self.accuracy(result, request)


#: By the name of the flag.
FILE_VIEWS = {
    "junit": FileView(
        lambda report, r: report_to_junit(report, fail_on_warning=r.fail_on_warning),
        lambda table, r: accuracy_to_junit(table, fail_on_warning=r.fail_on_warning),
    ),
    "html": FileView(
        lambda report, r: report_to_html(report, r.made_by),
        lambda table, r: accuracy_to_html(table, r.made_by),
    ),
    "markdown": FileView(
        lambda report, r: report_to_markdown(report),
        lambda table, r: accuracy_to_markdown(table),
    ),
}
