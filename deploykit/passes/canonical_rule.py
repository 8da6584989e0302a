"""The table of rules that `canonicalize` applies: op type → the rule that gives its one spelling.

A new op is one rule in the file of its family (``canonicalize_*.py``), registered here by its
decorator, and one line in `deploykit.graph.ops`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from deploykit.graph.editing import GraphEditor
from deploykit.passes.base import Findings

if TYPE_CHECKING:
    import onnx_ir as ir

#: Rewrites one node, in place or by new nodes that are canonical themselves.
Rule = Callable[["ir.Node", GraphEditor, Findings], None]

RULES: dict[str, Rule] = {}


def rule_for(*op_types: str) -> Callable[[Rule], Rule]:
    """Decorator: this rule spells these ops of the default domain.

    Raises:
        ValueError: an op has a rule already.
    """

    def decorate(rule: Rule) -> Rule:
        for op_type in op_types:
            if op_type in RULES:
                raise ValueError(f"{op_type} has two canonical spellings")
            RULES[op_type] = rule
        return rule

    return decorate
