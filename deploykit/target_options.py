"""Options of targets as the user writes them: ``TARGET.NAME=VALUE``, e.g. ``coreml.ios=17``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from deploykit.errors import UserError


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
