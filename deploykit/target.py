"""What a target is, and how targets are found.

A target = policy + lowering table + writer + runners. It is one object, named by an entry point in
the group ``deploykit.targets``; the core finds it there and imports no target by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from deploykit.errors import UserError
from deploykit.lowering import LoweringTable
from deploykit.model import Model, Precision
from deploykit.runners.base import RunnerDefinition
from deploykit.target_options import TargetOption, check_options
from deploykit.tensors import QuantParams, TensorSpec

if TYPE_CHECKING:
    from deploykit_quantize.policy import Policy

ENTRY_POINT_GROUP = "deploykit.targets"


@dataclass(frozen=True)
class ArtifactRequest:
    """What to write.

    Attributes:
        precision: What the artefact computes in.
        options: The target's own options by name, e.g. ``{"io": "float32", "input_layout":
            "NHWC"}``; the target checks them.
    """

    precision: Precision
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Artifact:
    """A target's file in memory, with its contract.

    Attributes:
        target: The target's name.
        precision: What it computes in.
        suffix: Of the artefact's path, with the dot.
        data: The file's bytes; empty if the path is a folder.
        companions: Files beside it or, if it is a folder, inside of it: suffix to the artefact's
            stem > bytes, e.g. ``.bin`` or ``.mlpackage/Manifest.json``.
        inputs: Its inputs, in its own layouts and dtypes, in order.
        outputs: Its outputs, in order.
        output_steps: Output name > the integer quantization behind it, for every output that is
            computed in integers; also where the output itself is float (``io=float32``).
        value_names: Value name of the stage > tensor name in the artefact, for layer-by-layer
            comparison; only values that exist on both sides.
        value_specs: Tensor name in the artefact > its layout and quantization.
        summary: What a user should know of it, by name: ``ops``, ``partitions``, ...
        warnings: What may go wrong with it on some machine, and what to do, in words; they become
            the report's.
    """

    target: str
    precision: Precision
    suffix: str
    data: bytes
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    companions: Mapping[str, bytes] = field(default_factory=dict)
    output_steps: Mapping[str, QuantParams] = field(default_factory=dict)
    value_names: Mapping[str, str] = field(default_factory=dict)
    value_specs: Mapping[str, TensorSpec] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def files(self, stem: str) -> dict[str, bytes]:
        """Relative path > bytes of every file, for an artefact called ``stem`` + suffix."""
        found = {stem + self.suffix: self.data} if self.data else {}
        return found | {stem + suffix: data for suffix, data in sorted(self.companions.items())}


@runtime_checkable
class Target(Protocol):
    """The interface that the object behind an entry point has."""

    @property
    def name(self) -> str:
        """What ``--to`` calls it."""

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """What it can write."""

    @property
    def runners(self) -> tuple[RunnerDefinition, ...]:
        """The runtimes that run its artefacts; the first is the one users' phones have."""

    def policy(self, precision: Precision) -> Policy | None:
        """How a precision is quantized; None where the float stage is written as it is."""

    def write(self, model: Model, request: ArtifactRequest) -> Artifact:
        """Lower a fused or quantized stage to a file in memory.

        Raises:
            UnsupportedOpsError: with every op that has no lowering.
            ContractError: an option that the target does not know.
        """

    def lowerings(self) -> LoweringTable[Any]:
        """The ops that it lowers, and those that it refuses with a reason."""

    def recognizes(self, path: Path) -> bool:
        """Whether a file holds this target's format, by its content."""

    def inspect(self, path: Path) -> str:
        """A file of this target in words: ops, types, scales, partitions, runtime version."""


@runtime_checkable
class OptionedTarget(Protocol):
    """A target that has options; they are declared as data."""

    @property
    def options(self) -> tuple[TargetOption, ...]:
        """What ``--option TARGET.NAME=VALUE`` may say."""


@runtime_checkable
class QuantizingByOptions(Protocol):
    """A target some of whose options decide how a model is quantized."""

    def policy_with(self, precision: Precision, options: Mapping[str, str]) -> Policy | None:
        """As `Target.policy`, with options.

        Raises:
            ContractError: an option that the target does not know.
        """


@runtime_checkable
class CheckingTarget(Protocol):
    """A target that can tell, before anything is done, what it cannot write."""

    def check_request(self, request: ArtifactRequest) -> None:
        """Refuse options that contradict each other or the precision.

        Raises:
            ContractError: with what they contradict.
        """


@runtime_checkable
class PreferringTarget(Protocol):
    """A target whose files are another precision than fp32 where the user names none."""

    @property
    def default_precision(self) -> Precision:
        """What is written then."""


def options_of(target: Target) -> tuple[TargetOption, ...]:
    """The options that a target has declared."""
    return target.options if isinstance(target, OptionedTarget) else ()


def default_precision_of(target: Target) -> Precision:
    """What is written of a target where the user names no precision."""
    if isinstance(target, PreferringTarget):
        return target.default_precision
    return Precision.FP32 if Precision.FP32 in target.precisions else target.precisions[0]


def check_request(target: Target, request: ArtifactRequest) -> None:
    """Refuse what a target cannot write: its options by their declaration, then by itself.

    Raises:
        ContractError: an option or value that it does not have, or a contradiction.
    """
    check_options(target.name, options_of(target), request.options)
    if isinstance(target, CheckingTarget):
        target.check_request(request)


def policy_of(target: Target, precision: Precision, options: Mapping[str, str]) -> Policy | None:
    """How a target wants a precision quantized, given the options that it was asked for.

    Raises:
        ContractError: an option that the target does not know.
    """
    if isinstance(target, QuantizingByOptions):
        return target.policy_with(precision, options)
    return target.policy(precision)


def _members() -> list[str]:
    return [name for name in vars(Target) if not name.startswith("_")]


def available_targets() -> dict[str, str]:
    """Target name > ``module:attribute``, for every installed target; imports none of them."""
    found = {e.name: e.value for e in entry_points(group=ENTRY_POINT_GROUP)}
    return dict(sorted(found.items()))


def find_target(name: str) -> Target:
    """The target of that name.

    Raises:
        UserError: no such target is installed, or it does not fit this version.
    """
    for entry in entry_points(group=ENTRY_POINT_GROUP, name=name):
        try:
            target = entry.load()
        except (ImportError, AttributeError) as error:
            raise UserError(
                f"the target {name!r} ({entry.value}) cannot be imported: {error}",
                advice="reinstall or remove the package that brings it",
            ) from error
        if not isinstance(target, Target):
            lacks = sorted(m for m in _members() if not hasattr(target, m))
            raise UserError(
                f"the target {name!r} ({entry.value}) lacks {', '.join(lacks)}",
                expected="a target for this version of deploykit (deploykit.target.Target)",
                advice="update or remove the package that brings it",
            )
        return target
    raise UserError(
        f"no target is called {name!r}",
        expected=f"one of {', '.join(available_targets()) or '(none is installed)'}",
    )
