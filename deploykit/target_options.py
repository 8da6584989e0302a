"""Options of targets as the user writes them: ``TARGET.NAME=VALUE``, e.g. ``coreml.ios=17``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from deploykit.errors import ContractError, UserError


@dataclass(frozen=True)
class TargetOption:
    """One option of a target, as data: what checks it, and what help and documents tell of it.

    Attributes:
        name: As in ``TARGET.NAME=VALUE``.
        values: What it may be; empty for a number from 1 on.
        default: What it is where it is not given, in words.
        summary: What it does, one line.
    """

    name: str
    values: tuple[str, ...]
    default: str
    summary: str

    @property
    def values_in_words(self) -> str:
        """The values, comma-separated."""
        return ", ".join(self.values) if self.values else "a number from 1 on"


def check_options(
    target: str, declared: Iterable[TargetOption], given: Mapping[str, str]
) -> dict[str, str]:
    """Every declared option with its value: the given one, or the default.

    Args:
        target: The target's name, for the error.
        declared: Its options.
        given: Name > value, as the user wrote them.

    Raises:
        ContractError: an option that is not declared, or a value that it may not have.
    """
    known = {option.name: option for option in declared}
    for name, value in given.items():
        if name not in known:
            raise ContractError(
                f"the target {target} has no option {name!r}",
                expected=f"one of {', '.join(known)}",
            )
        option = known[name]
        fits = value in option.values if option.values else value.isdecimal() and int(value) > 0
        if not fits:
            raise ContractError(f"option {name} is {value!r}", expected=option.values_in_words)
    return {name: given.get(name, option.default) for name, option in known.items()}


def parse_target_options(texts: Iterable[str]) -> dict[str, dict[str, str]]:
    """Target > option > value.

    Args:
        texts: Each ``TARGET.NAME=VALUE``; the target checks name and value.

    Raises:
        UserError: another form, or one option given two values.
    """
    found: dict[str, dict[str, str]] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        target, dot, option = name.partition(".")
        if not (equals and dot and target and option and value):
            raise UserError(
                f"the option {text!r}", expected="TARGET.NAME=VALUE, e.g. coreml.ios=17"
            )
        before = found.setdefault(target, {}).setdefault(option, value)
        if before != value:
            raise UserError(f"the option {name} is given twice: {before!r} and {value!r}")
    return found


def check_option_targets(options: Mapping[str, Mapping[str, str]], targets: Iterable[str]) -> None:
    """Refuse options of a target that nothing is written for.

    Raises:
        UserError: with the first such target.
    """
    written = list(targets)
    for target in options:
        if target not in written:
            given = ", ".join(f"{target}.{name}" for name in options[target])
            raise UserError(
                f"option {given} for {target}, which nothing is written for",
                expected=f"an option of {', '.join(written)}",
                advice=f"add {target} to --to, or leave the option out",
            )
