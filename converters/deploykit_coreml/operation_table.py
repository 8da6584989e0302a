"""What the reference executor's operations are registered in, and what they read.

`execute_program` runs what the ``operate_*`` modules register here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deploykit.tensors import Array
from deploykit_coreml.read_package import ProgramOp

FLOATS = ("float16", "float32")


class UnknownFormError(Exception):
    """A parameter, mode or type that the executor does not implement."""


@dataclass
class Parameters:
    """What one operation is given; each parameter is marked as it is read.

    Attributes:
        op: The operation.
        given: Parameter → value, or values of a parameter that takes several.
        read: Parameters read so far.
    """

    op: ProgramOp
    given: Mapping[str, Any]
    read: set[str] = field(default_factory=set)

    def has(self, name: str) -> bool:
        """Whether a parameter is given."""
        return name in self.given

    def raw(self, name: str) -> Any:
        """A parameter as it is."""
        self.read.add(name)
        if name not in self.given:
            raise UnknownFormError(f"it has no parameter '{name}'")
        return self.given[name]

    def array(self, name: str) -> Array:
        """An array as the program holds it."""
        value = self.raw(name)
        if not isinstance(value, np.ndarray):
            raise UnknownFormError(f"parameter '{name}' is no array")
        return value

    def real(self, name: str = "x") -> Array:
        """A float array, in float32 to compute with."""
        value = self.array(name)
        if value.dtype.name not in FLOATS:
            raise UnknownFormError(f"parameter '{name}' of type {value.dtype.name}")
        return value.astype(np.float32)

    def number(self, name: str) -> float:
        """A single number."""
        return float(self.array(name).reshape(-1)[0])

    def integer(self, name: str) -> int:
        """A single integer."""
        (value,) = self.integers(name)
        return value

    def integers(self, name: str) -> list[int]:
        """A list of integers."""
        value = self.array(name)
        if value.dtype.kind not in "iu":
            raise UnknownFormError(f"parameter '{name}' of type {value.dtype.name}")
        return [int(i) for i in value.reshape(-1)]

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self.array(name)
        if value.dtype != np.bool_ or value.size != 1:
            raise UnknownFormError(f"parameter '{name}' is not a single bool")
        return bool(value.reshape(-1)[0])

    def text(self, name: str) -> str:
        """A text."""
        value = self.raw(name)
        if not isinstance(value, str):
            raise UnknownFormError(f"parameter '{name}' is no text")
        return value

    def require(self, name: str, wanted: Any) -> None:
        """Refuse any other value of a parameter.

        Raises:
            UnknownFormError: it has another value.
        """
        value = self.raw(name)
        plain = value.tolist() if isinstance(value, np.ndarray) else value
        if plain != wanted:
            raise UnknownFormError(f"{name} = {plain!r} is not implemented, only {wanted!r}")


Operate = Callable[[Parameters], "Array | tuple[Array, ...]"]


@dataclass(frozen=True)
class Operation:
    """How one type of operation is computed.

    Attributes:
        compute: Gives the result, or the results; floats in any precision, all else in its type.
        parameters: The parameters that it reads.
    """

    compute: Operate
    parameters: frozenset[str]


OPERATIONS: dict[str, Operation] = {}


def operation(*types: str, reads: str) -> Callable[[Operate], Operate]:
    """Decorator: this function computes these types, and reads these parameters.

    Raises:
        ValueError: a type has a function already.
    """

    def decorate(compute: Operate) -> Operate:
        for type_ in types:
            if type_ in OPERATIONS:
                raise ValueError(f"operation {type_} is registered twice")
            OPERATIONS[type_] = Operation(compute, frozenset(reads.split()))
        return compute

    return decorate
