"""What a pass is.

A pass is a frozen dataclass whose fields are its options. It rewrites an `onnx_ir.Model` in place
(the pipeline hands it a clone), and returns what it did. It names the facts about the graph that
it requires and those that it ensures; the pipeline refuses an order in which a requirement is
not met. A rule that does not apply says why, so that ``deploykit inspect`` can tell.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from deploykit.model import PassNote
from deploykit.time_limit import time_limit

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class PassResult:
    """What one run of a pass did.

    Attributes:
        changed: Whether the graph is any different.
        notes: What matched, and what did not and why.
    """

    changed: bool
    notes: tuple[PassNote, ...] = ()


@dataclass
class Findings:
    """Collects the notes of one run of a pass; `result` turns them into a `PassResult`."""

    pass_name: str
    notes: list[PassNote] = field(default_factory=list)
    changed: bool = False

    def matched(self, node: ir.Node | str, what: str) -> None:
        """The pass rewrote ``node``; ``what`` says how."""
        self.changed = True
        self.notes.append(PassNote(self.pass_name, _name(node), True, what))

    def skipped(self, node: ir.Node | str, why: str) -> None:
        """The pass looked at ``node`` and left it; ``why`` says what stood in the way."""
        self.notes.append(PassNote(self.pass_name, _name(node), False, why))

    def result(self) -> PassResult:
        """The notes, frozen."""
        return PassResult(self.changed, tuple(self.notes))


def _name(node: ir.Node | str) -> str:
    if isinstance(node, str):
        return node
    return node.name or (node.outputs[0].name if node.outputs else "") or node.op_type


class Pass(ABC):
    """Base of all passes; subclasses are frozen dataclasses, one a file."""

    #: Facts that must hold before the pass runs.
    requires: ClassVar[frozenset[str]] = frozenset()
    #: Facts that hold after it ran, whatever it found.
    ensures: ClassVar[frozenset[str]] = frozenset()
    #: Facts that may no longer hold after it ran.
    breaks: ClassVar[frozenset[str]] = frozenset()

    @property
    def name(self) -> str:
        """The class name in snake case; also the name of the pass's file."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()

    @abstractmethod
    def apply(self, model: ir.Model) -> PassResult:
        """Rewrite ``model`` in place and say what was done."""


def run_passes(model: ir.Model, passes: Sequence[Pass]) -> tuple[PassNote, ...]:
    """Run passes in order on ``model``, in place; check that their requirements are met.

    Raises:
        UnsupportedModelError: a pass took longer than `Limits.stage_seconds`.
        ValueError: a pass requires a fact that none before it ensures (a bug of the pipeline).
    """
    facts: set[str] = set()
    notes: list[PassNote] = []
    for one in passes:
        missing = one.requires - facts
        if missing:
            raise ValueError(f"pass {one.name} requires {sorted(missing)}, which nothing ensures")
        try:
            with time_limit(f"the pass {one.name}"):
                notes.extend(one.apply(model).notes)
        except Exception as error:
            error.add_note(f"in the pass {one.name}")
            raise
        facts = (facts - one.breaks) | one.ensures
    return tuple(notes)
