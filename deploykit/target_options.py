"""Options of targets as the user writes them: ``TARGET.NAME=VALUE``, e.g. ``coreml.ios=17``.

An option may also have a flag of the command line (``--ios 17``), which is sugar for the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from deploykit.errors import ContractError, UserError

#: What is written where the user names no target: the one name of a target that the core knows.
DEFAULT_TARGET = "tflite"


@dataclass(frozen=True)
class TargetOption:
    """One option of a target, as data: what checks it, and what help and documents tell of it.

    Attributes:
        name: As in ``TARGET.NAME=VALUE``. With ``KEY`` after its last dot (``metadata.KEY``) it is
            a family: any key may stand there.
        values: What it may be; empty for a number from 1 on, or a text.
        default: What it is where it is not given, in words.
        summary: What it does, one line.
        flag: Of the command line, e.g. ``--ios``; empty for none. One of an option that is yes or
            no takes no value: it says yes.
        precisions: Names of the precisions that it is for; empty for all. Files of other
            precisions are written without it.
        text: Whether it is any text that is not empty.
    """

    name: str
    values: tuple[str, ...]
    default: str
    summary: str
    flag: str = ""
    precisions: tuple[str, ...] = ()
    text: bool = False

    def format_values(self) -> str:
        """The values, comma-separated."""
        if self.text:
            return "any text"
        return ", ".join(self.values) if self.values else "a number from 1 on"

    @property
    def is_family(self) -> bool:
        """Whether any key may take the place of the last part of its name."""
        return self.name.endswith(f".{_KEY}")

    def matches(self, name: str) -> bool:
        """Whether ``name`` is this option, or one of this family."""
        if not self.is_family:
            return name == self.name
        stem = self.name.removesuffix(_KEY)
        return name.startswith(stem) and name != stem

    def accepts(self, value: str) -> bool:
        """Whether it may have this value."""
        if self.text:
            return bool(value.strip())
        return value in self.values if self.values else value.isdecimal() and int(value) > 0


_KEY = "KEY"

#: Of every target that declares it: the core appends the op to the stage that the target is given.
SOFTMAX = TargetOption(
    "softmax", ("no", "yes"), "no", "yes: Softmax is appended, the output holds probabilities"
)


def check_options(
    target: str, declared: Iterable[TargetOption], given: Mapping[str, str]
) -> dict[str, str]:
    """Every declared option with its value: the given one, or the default.

    A family (``metadata.KEY``) has no default: of it the given ones are there.

    Args:
        target: The target's name, for the error.
        declared: Its options.
        given: Name → value, as the user wrote them.

    Raises:
        ContractError: an option that is not declared, or a value that it may not have.
    """
    options = tuple(declared)
    for name, value in given.items():
        option = _find(target, options, name)
        if not option.accepts(value):
            raise ContractError(f"option {name} is {value!r}", expected=option.format_values())
    chosen = {o.name: given.get(o.name, o.default) for o in options if not o.is_family}
    return chosen | dict(given)


def options_of_precision(
    target: str, declared: Iterable[TargetOption], given: Mapping[str, str], precision: str
) -> dict[str, str]:
    """The given options that a precision has.

    Raises:
        ContractError: an option that is not declared.
    """
    options = tuple(declared)
    found = {}
    for name, value in given.items():
        wanted = _find(target, options, name).precisions
        if not wanted or precision in wanted:
            found[name] = value
    return found


def check_option_precisions(
    target: str,
    declared: Iterable[TargetOption],
    given: Mapping[str, str],
    precisions: Iterable[str],
) -> None:
    """Refuse an option that none of the precisions has that are to be written.

    Raises:
        ContractError: with the first such option.
    """
    options, asked = tuple(declared), tuple(precisions)
    for name, value in given.items():
        wanted = _find(target, options, name).precisions
        if wanted and not set(wanted) & set(asked):
            raise ContractError(
                f"option {target}.{name}={value} with {', '.join(asked)}",
                expected=f"precision {' or '.join(wanted)}, which it is for",
                advice=f"add --{wanted[0]}, or leave the option out",
            )


def _find(target: str, declared: tuple[TargetOption, ...], name: str) -> TargetOption:
    for option in declared:
        if option.matches(name):
            return option
    raise ContractError(
        f"the target {target} has no option {name!r}",
        expected=f"one of {', '.join(o.name for o in declared)}"
        if declared
        else "none: it has no options",
    )


def parse_target_options(texts: Iterable[str]) -> dict[str, dict[str, str]]:
    """Target → option → value.

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
