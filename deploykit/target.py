"""What a target is, and how targets are found.

A target = policy + lowering table + writer + runners. It is one object, named by an entry point in
the group ``deploykit.targets``; the core finds it there and imports no target by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from deploykit.artifact import Artifact, ArtifactRequest
from deploykit.errors import UserError
from deploykit.model import Precision
from deploykit.target_definition import INTERFACE_VERSION, TargetDefinition
from deploykit.target_options import TargetOption, check_options

if TYPE_CHECKING:
    from deploykit_quantize.policy import Policy

__all__ = [
    "ENTRY_POINT_GROUP",
    "Artifact",
    "ArtifactRequest",
    "Target",
    "available_targets",
    "check_request",
    "default_precision_of",
    "find_target",
    "options_of",
    "policy_of",
]

ENTRY_POINT_GROUP = "deploykit.targets"


#: What the core calls the object that it finds by an entry point.
Target = TargetDefinition


def options_of(target: Target) -> tuple[TargetOption, ...]:
    """The options that a target has declared."""
    return target.options


def default_precision_of(target: Target) -> Precision:
    """What is written of a target where the user names no precision."""
    return target.default_precision


def check_request(target: Target, request: ArtifactRequest) -> None:
    """Refuse what a target cannot write: its options by their declaration, then by itself.

    Raises:
        ContractError: an option or value that it does not have, or a contradiction.
    """
    check_options(target.name, options_of(target), request.options)
    target.check_request(request)


def policy_of(target: Target, precision: Precision, options: Mapping[str, str]) -> Policy | None:
    """How a target wants a precision quantized, given the options that it was asked for.

    Raises:
        ContractError: an option that the target does not know.
    """
    return target.policy(precision, options)


def available_targets() -> dict[str, str]:
    """Target name → ``module:attribute``, for every installed target; imports none of them."""
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
        except (ImportError, AttributeError, TypeError) as error:
            raise UserError(
                f"the target {name!r} ({entry.value}) cannot be imported: {error}",
                advice="reinstall or remove the package that brings it",
            ) from error
        if not isinstance(target, TargetDefinition):
            found = f"is a {type(target).__name__}"
        elif problems := "; ".join(target.problems(name)):
            found = f"does not fit: {problems}"
        else:
            return target
        raise UserError(
            f"the target {name!r} ({entry.value}) {found}",
            expected="a deploykit.target_definition.TargetDefinition of interface "
            f"{INTERFACE_VERSION}",
            advice="update or remove the package that brings it",
        )
    raise UserError(
        f"no target is called {name!r}",
        expected=f"one of {', '.join(available_targets()) or '(none is installed)'}",
    )
