"""What a rule is, what it sees, and the table of rules.

A new rule is one file: a frozen dataclass that registers itself, and its name in `lint_model`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeVar

from deploykit.cost.count import pair_nodes
from deploykit.cost.find_absorbed import find_absorbed
from deploykit.cost.layer import LayerCost, StageCost
from deploykit.lint.finding import Finding, Severity
from deploykit.model import Model, Precision

if TYPE_CHECKING:
    import onnx_ir as ir

    from deploykit.target import Target


@dataclass(frozen=True)
class LintContext:
    """What rules look at.

    Attributes:
        fused: The fused stage; of a quantized model, with its Q and DQ nodes.
        graph: What is looked at: the fused stage, float-shaped, without Q and DQ nodes.
        cost: Its cost in fp32.
        precisions: Which precisions the user wants to ship.
        target: For whose runtime; None for none.
    """

    fused: Model
    graph: ir.Model
    cost: StageCost
    precisions: tuple[Precision, ...]
    target: Target | None

    def layers(self) -> Iterator[tuple[LayerCost, ir.Node]]:
        """Every layer with its (first) node, in the order of the graph."""
        pairs = pair_nodes(self.graph.graph, find_absorbed(self.graph.graph))
        for layer, (node, _) in zip(self.cost.layers, pairs, strict=True):
            yield layer, node

    def share_of_access(self, mac_bytes: float) -> float:
        """Of the network's memory-access cost."""
        return mac_bytes / self.cost.mac_bytes if self.cost.mac_bytes else 0.0

    def share_of_mult_adds(self, mult_adds: float) -> float:
        """Of the network's mult-adds."""
        return mult_adds / self.cost.mult_adds if self.cost.mult_adds else 0.0


class Rule(ABC):
    """Base of all rules; subclasses are frozen dataclasses whose fields are their thresholds."""

    #: What reports and ``--ignore`` call it.
    id: ClassVar[str]
    #: The most severe that its findings can be.
    severity: ClassVar[Severity]
    #: What it says, in a sentence.
    text: ClassVar[str]

    @abstractmethod
    def check(self, context: LintContext) -> Iterator[Finding]:
        """Every finding, in any order."""


RULES: dict[str, Rule] = {}

RuleType = TypeVar("RuleType", bound=type[Rule])


def register_rule(rule: RuleType) -> RuleType:
    """Class decorator: enter the rule, with its default thresholds.

    Raises:
        ValueError: the id is taken.
    """
    if rule.id in RULES:
        raise ValueError(f"the rule {rule.id} is registered twice")
    RULES[rule.id] = rule()
    return rule


def label_of(layer: LayerCost) -> str:
    """How a finding names a layer."""
    return layer.module or layer.name


def make_severity(*, serious: bool) -> Severity:
    """Warning or info."""
    return Severity.WARNING if serious else Severity.INFO
