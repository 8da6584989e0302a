"""What a rule finds, and the report of all findings."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    """How much a finding matters; the order is the order of weight."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def weight(self) -> int:
        """0 for info, 1 for warning, 2 for error."""
        return list(Severity).index(self)


@dataclass(frozen=True)
class Finding:
    """One thing that costs more than it had to.

    Attributes:
        rule: Id of the rule.
        severity: How much it matters.
        layer: Module path of the layer, or the name of its value where the source has no modules;
            ``(whole network)`` for a finding that is no single layer's.
        value_name: Name of the value that the layer makes; empty for the whole network.
        measure: What ``number`` is, in words.
        number: The figure that the rule verifies.
        bound: What it is verified against.
        message: The number and what it costs against the bound, in words.
        advice: What to do.
        share: What the finding is worth, as a share of the network's memory-access cost or
            mult-adds: for sorting.
    """

    rule: str
    severity: Severity
    layer: str
    value_name: str
    measure: str
    number: float
    bound: float
    message: str
    advice: str
    share: float = 0.0


@dataclass(frozen=True)
class LintReport:
    """All findings on a model.

    Attributes:
        model: Its name.
        precisions: For which precisions it was verified.
        target: For whose runtime; empty for none.
        findings: By rule in the order of the rules, the most expensive first.
        uncounted: Ops that have no known cost, in words; empty if there are none.
    """

    model: str
    precisions: tuple[str, ...]
    target: str
    findings: tuple[Finding, ...]
    uncounted: str

    def reaches(self, severity: Severity) -> bool:
        """Whether any finding is of that severity or above."""
        return any(f.severity.weight >= severity.weight for f in self.findings)

    def count(self, severity: Severity) -> int:
        """Number of findings of exactly that severity."""
        return sum(f.severity is severity for f in self.findings)


@dataclass(frozen=True)
class DelegateSplit:
    """One op of the artefact that the fast kernel library leaves.

    Attributes:
        value: Name of a value of the stage: the one that the op makes.
        op: The op's name in the artefact.
        library: The kernel library's name.
    """

    value: str
    op: str
    library: str
