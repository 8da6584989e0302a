"""What a conversion made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deploykit.bundle import Bundle
from deploykit.flow.class_folders import ReferenceAccuracy
from deploykit.verdict import Report


@dataclass(frozen=True)
class ConversionResult:
    """What `convert` made.

    Attributes:
        folder: The bundle.
        bundle: Its manifest.
        report: All verdicts; without any if nothing was verified.
        reference_accuracy: Top-1 of the float reference on the class folders that calibrated;
            None without such folders, or if nothing was verified.
    """

    folder: Path
    bundle: Bundle
    report: Report
    reference_accuracy: ReferenceAccuracy | None = None

    def __repr__(self) -> str:
        """One line: where it is, how many files, the verdicts in short."""
        files = len(self.bundle.artifacts)
        return f"<ConversionResult in {str(self.folder)[-300:]!r}: {files} files, {self.report!r}>"

    def _repr_html_(self) -> str:
        """The verdicts as a table, for notebooks."""
        return self.report._repr_html_()
