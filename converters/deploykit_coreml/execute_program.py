"""The reference executor: a saved program, operation by operation, in numpy.

It is a second reading of the format, apart from the code that writes it, and it is not Apple's
runtime. It computes inside of an operation in float32 and rounds the result to the type that the
program declares: for a float16 program that is what "each op in float16" says, where hardware may
round more (additions in float16) or less (several ops as one).

It refuses what it does not know: a type of operation, a parameter, an element type, a mode. Each
operation says which parameters it reads; one that a program gives and nothing reads is an error,
because a parameter that is ignored is a result that is wrong in silence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from deploykit.errors import RunnerError
from deploykit.tensors import Array
from deploykit_coreml.operation_table import FLOATS, OPERATIONS, Parameters, UnknownFormError
from deploykit_coreml.read_package import Package, ProgramOp, Value
from deploykit_coreml.read_values import ValueType


def check_program(package: Package) -> None:
    """Refuse a program with anything that is not implemented, naming all of it.

    Raises:
        RunnerError: with every type of operation and every parameter that is not known.
    """
    _register_operations()
    found: dict[str, None] = {}
    for op in package.operations:
        known = OPERATIONS.get(op.type)
        if known is None:
            found[f"the operation {op.type} ('{op.name}')"] = None
            continue
        for parameter in (*op.inputs, *op.attributes):
            if parameter not in known.parameters:
                found[f"the parameter '{parameter}' of {op.type} ('{op.name}')"] = None
    if found:
        raise RunnerError(
            f"the reference executor does not implement {'; '.join(found)}",
            advice="run the package on a Mac, where the runner 'coreml' is Apple's own",
        )


def _register_operations() -> None:
    # Each of these modules registers what it implements.
    from deploykit_coreml import (  # noqa: F401
        operate_constants,
        operate_convolution,
        operate_elementwise,
        operate_pooling,
        operate_products,
        operate_resize,
        operate_shape,
    )


class Executor:
    """A program that was checked, with its constants computed once."""

    def __init__(self, package: Package) -> None:
        """Raises RunnerError: what is not implemented, or a constant that does not fit."""
        check_program(package)
        self._package = package
        self._constants: dict[str, Any] = {}
        self._steps: list[ProgramOp] = []
        for op in package.operations:
            if op.type == "const" or op.type.startswith("constexpr_"):
                self._constants.update(self._results(op, self._constants))
            else:
                self._steps.append(op)
        self._dies: list[tuple[str, ...]] = [()] * len(self._steps)
        last_use = {n: index for index, op in enumerate(self._steps) for n in _names_read(op)}
        for name, index in last_use.items():
            if name not in package.outputs and name not in self._constants:
                self._dies[index] += (name,)

    def run(self, inputs: Mapping[str, Array], *, keep_all: bool = False) -> dict[str, Array]:
        """One pass over the program.

        Args:
            inputs: Name → array in the program's own shape and dtype.
            keep_all: Whether to return every computed value.

        Returns:
            Outputs by name, or every input and computed value.

        Raises:
            RunnerError: inputs that do not fit, or a form that is not implemented.
        """
        values: dict[str, Any] = dict(self._constants)
        for name, type_ in self._package.inputs:
            _check_result(f"input '{name}'", inputs[name], type_)
            values[name] = inputs[name]
        for op, dies in zip(self._steps, self._dies, strict=True):
            values.update(self._results(op, values))
            if not keep_all:
                for name in dies:
                    del values[name]
        if keep_all:
            return {name: v for name, v in values.items() if name not in self._constants}
        return {name: values[name] for name in self._package.outputs}

    def _results(self, op: ProgramOp, values: Mapping[str, Any]) -> dict[str, Array]:
        parameters = Parameters(op, dict(_given(op, values)))
        try:
            with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
                found = OPERATIONS[op.type].compute(parameters)
                unread = sorted(set(parameters.given) - parameters.read)
                if unread:
                    raise UnknownFormError(f"nothing read its parameters {', '.join(unread)}")
                results = found if isinstance(found, tuple) else (found,)
                return dict(_declared(op, results))
        except UnknownFormError as error:
            raise RunnerError(
                f"the reference executor cannot compute {op.type} '{op.name}': {error}"
            ) from error


def _names_read(op: ProgramOp) -> Iterator[str]:
    for parameter, arguments in op.inputs.items():
        for argument, is_name in zip(arguments, op.references[parameter], strict=True):
            if is_name and isinstance(argument, str):
                yield argument


def _given(op: ProgramOp, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for parameter, arguments in op.inputs.items():
        found: list[Value] = []
        for argument, is_name in zip(arguments, op.references[parameter], strict=True):
            if is_name and argument not in values:
                raise RunnerError(f"{op.type} '{op.name}' reads {argument!r}, which nothing makes")
            found.append(values[str(argument)] if is_name else argument)
        # Only concat takes several; there even one is a list of one.
        yield parameter, found if parameter == "values" or len(found) != 1 else found[0]
    yield from op.attributes.items()


def _declared(op: ProgramOp, results: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """Results rounded to the float type that the program declares; all else must be as declared."""
    if len(results) != len(op.outputs):
        raise UnknownFormError(f"{len(results)} results where {len(op.outputs)} are declared")
    for (name, type_), result in zip(op.outputs, results, strict=True):
        value = result
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and type_.dtype in FLOATS:
            value = value.astype(type_.dtype)
        _check_result(f"{op.type} '{op.name}'", value, type_)
        yield name, value


def _check_result(what: str, value: Any, type_: ValueType) -> None:
    if type_.kind != "tensor" or type_.dtype == "text":  # of a classifier, told by index
        return
    dtype = "uint8" if type_.dtype in ("uint4", "uint6") else type_.dtype
    if value.shape != type_.shape or value.dtype.name != dtype:
        raise RunnerError(
            f"{what} is {value.dtype.name} {value.shape}",
            expected=f"{dtype} {type_.shape}, as the program declares",
        )
