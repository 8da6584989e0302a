"""Every error that deploykit raises on purpose, and the exit code each one means.

    DeploykitError
    ├── UserError                  exit 2   something given to deploykit cannot be used
    │   ├── SourceError                     a model file, checkpoint or architecture
    │   ├── DataError                       images, tensors, datasets, calibration sets
    │   ├── ContractError                   a preprocessing contract or an option that contradicts
    │   ├── BundleError                     a bundle or an output folder
    │   └── MissingDependencyError          an optional package is not installed
    ├── ParityError                exit 1   an artefact does not do what its source does
    ├── UnsupportedModelError      exit 3   a sound model that deploykit does not support
    │   ├── UnsupportedOpsError             ... because of ops, all listed at once
    │   └── NoIntegerLayersError            ... as int8: nothing of it is quantized
    └── RunnerError                exit 1   a runtime refused a model, or failed on it
        ├── RunnerCrashError                ... its process died
        └── RunnerTimeoutError              ... it took longer than it was given

Anything else that escapes is a bug of ours: exit 70 and one line (`deploykit.cli.guard`). A user
error says what was found, what was expected and what to do; `DeploykitError.__init__` takes the
three apart.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

EXIT_OK = 0
EXIT_PARITY = 1
EXIT_USER = 2
EXIT_UNSUPPORTED = 3
EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 130


class DeploykitError(Exception):
    """Base of all errors raised on purpose.

    Args:
        found: What was found; the headline.
        expected: What was expected instead, if that is not plain from the headline.
        advice: What the user can do about it.
    """

    exit_code = EXIT_USER

    def __init__(self, found: str, *, expected: str = "", advice: str = "") -> None:
        self.found = found
        self.expected = expected
        self.advice = advice
        lines = [found]
        if expected:
            lines.append(f"  expected: {expected}")
        if advice:
            lines.append(f"  what to do: {advice}")
        super().__init__("\n".join(lines))


class UserError(DeploykitError):
    """Something given to deploykit cannot be used."""


class SourceError(UserError):
    """A model file, checkpoint or architecture cannot be read or does not fit."""


class DataError(UserError):
    """Images, tensors, a dataset or a calibration set cannot be used."""


class ContractError(UserError):
    """A preprocessing contract or a combination of options contradicts itself."""


class BundleError(UserError):
    """A bundle is damaged, or an output folder cannot be written."""


class MissingDependencyError(UserError):
    """An optional package that the request needs is not installed.

    Args:
        package: The package that could not be imported.
        needed_for: What the user asked for that needs it.
        extra: The extra of deploykit that installs it.
    """

    def __init__(self, package: str, *, needed_for: str, extra: str) -> None:
        super().__init__(
            f"{needed_for} needs the package '{package}', which is not installed",
            advice=f"pip install 'deploykit[{extra}]'",
        )


class ParityError(DeploykitError):
    """An artefact does not do what its source does."""

    exit_code = EXIT_PARITY


class RunnerError(DeploykitError):
    """A runtime crashed, ran out of time, or refused a model."""

    exit_code = EXIT_PARITY


class RunnerCrashError(RunnerError):
    """A runtime's process died: by a signal, or by a separate exit."""


class RunnerTimeoutError(RunnerError):
    """A runtime took longer than its time limit, and was ended."""


class UnsupportedModelError(DeploykitError):
    """A sound model that deploykit does not support to the target."""

    exit_code = EXIT_UNSUPPORTED


class NoIntegerLayersError(UnsupportedModelError):
    """int8 of a model in which a target's policy finds nothing to quantize."""

    def __init__(self, advice: str = "keep it in floats (--fp32 or --fp16)") -> None:
        super().__init__(
            "int8 of a model that is not quantized: no layer of it runs in integers",
            expected="a convolution or a linear layer with constant weights",
            advice=advice,
        )


@dataclass(frozen=True)
class UnsupportedOp:
    """One node that a target has no lowering for.

    Attributes:
        op_type: ONNX op type, with its domain if that is not the default one.
        node: Name of the node.
        module_path: Where the source defines it, e.g. ``blocks.3.se.gate``; may be empty.
        reason: Why it is not supported.
        advice: What the user can change.
    """

    op_type: str
    node: str
    module_path: str
    reason: str
    advice: str = ""


class UnsupportedOpsError(UnsupportedModelError):
    """All nodes that a target cannot lower, reported at once, each cause once.

    Nodes of one op whose reasons differ in names and numbers alone are one cause.
    """

    def __init__(self, target: str, ops: Sequence[UnsupportedOp]) -> None:
        self.ops = tuple(ops)
        causes: dict[tuple[str, str, str], list[UnsupportedOp]] = {}
        for op in self.ops:
            key = op.op_type, _NAMES_AND_NUMBERS.sub("#", op.reason), op.advice
            causes.setdefault(key, []).append(op)
        rows = []
        for alike in causes.values():
            rows.append(f"  {_listed_nodes(alike)}: {alike[0].reason}")
            if alike[0].advice:
                rows.append(f"      what to do: {alike[0].advice}")
        plural = "s" if len(self.ops) != 1 else ""
        super().__init__(
            f"{len(self.ops)} node{plural} cannot be lowered to {target}:\n" + "\n".join(rows)
        )


_NAMES_AND_NUMBERS = re.compile(r"'[^']*'|\d+")
_LISTED = 3


def _listed_nodes(ops: Sequence[UnsupportedOp]) -> str:
    """``Op (node 'a' in module 'm')``, or ``Op, 216 nodes ('a' in module 'm', 'b', 'c', ...)``."""
    named = [
        f"'{o.node}'" + (f" in module '{o.module_path}'" if o.module_path else "") for o in ops
    ]
    if len(ops) == 1:
        return f"{ops[0].op_type} (node {named[0]})"
    more = ", ..." if len(ops) > _LISTED else ""
    return f"{ops[0].op_type}, {len(ops)} nodes ({', '.join(named[:_LISTED])}{more})"
