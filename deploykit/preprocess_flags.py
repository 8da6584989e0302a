"""The preprocessing contract as flags: ``--mean --std --resize --crop --interpolation --color``.

They are read before a model is loaded, so that a typing error costs no time, and change only what
they name of the contract that the model, or ``--preprocess``, brings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploykit.errors import ContractError, UserError
from deploykit.preprocess import Preprocess

_MOST_LABELS = 100_000


@dataclass(frozen=True)
class PreprocessChanges:
    """What the user says of the contract and of the labels.

    Attributes:
        whole: A contract that replaces the model's own; None for that one.
        fields: Single fields, as `Preprocess.from_dict` reads them; they win over ``whole``.
        labels: Class names in the order of the outputs; None for the model's own.
    """

    whole: Preprocess | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None

    def __bool__(self) -> bool:
        return self.whole is not None or bool(self.fields)

    def apply(self, contract: Preprocess | None, input_shape: tuple[int, ...]) -> Preprocess | None:
        """The contract with the changes made.

        Args:
            contract: The model's own; None if it has none.
            input_shape: (1, C, H, W) of its input: the size where nothing says another.

        Raises:
            ContractError: the changes do not go together, or with the rest.
        """
        base = self.whole or contract
        if not self.fields:
            return base
        if base is None:
            if len(input_shape) != 4:
                raise ContractError(
                    f"an input of shape {input_shape}", expected="an image: (1, C, H, W)"
                )
            given: dict[str, Any] = {"size": list(input_shape[2:])}
            given["color"] = "GRAY" if input_shape[1] == 1 else "RGB"
        else:
            given = base.to_dict()
        if "color" in self.fields and self.fields["color"] != given.get("color"):
            # One channel's mean says nothing of three.
            given = {k: v for k, v in given.items() if k not in ("mean", "std")}
        return Preprocess.from_dict({**given, **self.fields})


def read_flags(values: Mapping[str, str]) -> dict[str, Any]:
    """Fields of a contract from the flags' texts; flags that were not given are empty.

    Args:
        values: ``mean``, ``std``, ``resize``, ``crop``, ``interpolation``, ``color`` → text.

    Raises:
        UserError: a text that cannot be read.
    """
    found: dict[str, Any] = {}
    for name, text in values.items():
        if not text:
            continue
        if name in ("mean", "std"):
            found[name] = _numbers(name, text)
        elif name in ("resize", "crop"):
            found["size" if name == "crop" else name] = _sizes(name, text)
        else:
            found[name] = text.upper() if name == "color" else text.lower()
    return found


def read_labels(text: str) -> tuple[str, ...] | None:
    """Class names from ``--labels``: a text file with one a line, or ``cat,dog,bird``.

    Raises:
        UserError: a file that cannot be read as text, or has no names.
    """
    if not text:
        return None
    path = Path(text)
    if path.is_file():
        try:
            names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
        except (OSError, UnicodeError) as error:
            raise UserError(
                f"cannot read the labels in {path}: {error}", expected="UTF-8, one name a line"
            ) from error
        while names and not names[-1]:
            names.pop()
    else:
        names = [name.strip() for name in text.split(",")]
        if len(names) == 1:
            raise UserError(
                f"--labels {text!r} is no file, and a single name",
                expected="a text file with one name a line, or names joined by commas",
            )
    if not names or not all(names) or len(names) > _MOST_LABELS:
        raise UserError(
            f"--labels {text[:80]!r} has {len(names)} names, some of them empty",
            expected="one name for each class, none of them empty",
        )
    return tuple(names)


def read_contract(path: Path) -> Preprocess:
    """The preprocessing contract of a JSON file.

    Raises:
        ContractError: the file cannot be read, or holds no contract.
    """
    from deploykit.json_file import read_json

    try:
        fields = read_json(path)
    except (OSError, ValueError) as error:
        raise ContractError(
            f"cannot read the preprocessing contract {path}: {error}",
            expected='JSON, e.g. {"size": [224, 224], "resize": 256}',
        ) from error
    if not isinstance(fields, dict):
        raise ContractError(f"{path} holds no object", expected='{"size": [224, 224], ...}')
    return Preprocess.from_dict(fields)


def _numbers(name: str, text: str) -> float | list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        raise UserError(
            f"--{name} {text!r}", expected="a number, or one for each channel: 0.485,0.456,0.406"
        ) from None
    return numbers[0] if len(numbers) == 1 else numbers


def _sizes(name: str, text: str) -> int | list[int] | None:
    if name == "resize" and text == "none":
        return None
    if not re.fullmatch(r"[0-9]{1,6}(x[0-9]{1,6})?", text):
        raise UserError(
            f"--{name} {text!r}",
            expected="pixels: 256, or HEIGHTxWIDTH" + (", or none" if name == "resize" else ""),
        )
    sizes = [int(part) for part in text.split("x")]
    return sizes[0] if len(sizes) == 1 else sizes
