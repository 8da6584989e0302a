"""A TFLite model as plain data: tensors, operators, inputs and outputs.

The lowering functions build it, `write_flatbuffer` turns it into bytes. Names of operators and of
their options are those of the public schema; nothing here imports it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from deploykit.tensors import Array, Layout, QuantParams, TensorSpec

#: Values of the schema's ``ActivationFunctionType``.
ACTIVATION_NONE = 0
ACTIVATION_RELU = 1
ACTIVATION_RELU_N1_TO_1 = 2
ACTIVATION_RELU6 = 3
ACTIVATION_NAMES = {0: "", 1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6"}

#: Values of the schema's ``Padding``.
PADDING_SAME = 0
PADDING_VALID = 1

_SHARED_BYTES = 4096


@dataclass(frozen=True)
class LazyArray:
    """A constant that is read when the file is written, so that it is in memory only once.

    Attributes:
        shape: Its shape.
        dtype: numpy's name of its element type.
        load: Gives the array; any memory order.
    """

    shape: tuple[int, ...]
    dtype: str
    load: Callable[[], Array]

    @property
    def nbytes(self) -> int:
        """Its size."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class TfliteTensor:
    """One tensor.

    Attributes:
        name: Unique in the file.
        shape: As the file holds it.
        dtype: numpy's name of the element type.
        quantization: How its integers stand for reals; axes are those of ``shape``.
        data: Contents of a constant, of shape ``shape``; may be a view in any memory order.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    quantization: QuantParams | None = None
    data: Array | LazyArray | None = None


@dataclass(frozen=True)
class TfliteOp:
    """One operator.

    Attributes:
        code: Name in the schema's ``BuiltinOperator``.
        inputs: Indices of tensors; -1 for an optional one that is omitted.
        outputs: Indices of tensors.
        options: Name of its options table in the schema; empty for none.
        fields: Values of the options by their name in the schema (camelCase).
    """

    code: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)


class TfliteGraph:
    """Tensors and operators while they are collected; operators in the order of execution."""

    def __init__(self) -> None:
        self.tensors: list[TfliteTensor] = []
        self.ops: list[TfliteOp] = []
        self.inputs: list[int] = []
        self.outputs: list[int] = []
        self.input_layouts: list[Layout] = []
        self.output_layouts: list[Layout] = []
        self._names: set[str] = set()
        self._constants: dict[tuple[str, tuple[int, ...], bytes, QuantParams | None], int] = {}

    def add_tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str,
        quantization: QuantParams | None = None,
        data: Array | LazyArray | None = None,
    ) -> int:
        """Add a tensor; a name that is taken gets a number. Returns its index."""
        self.tensors.append(
            TfliteTensor(
                self._unique(name), tuple(int(d) for d in shape), dtype, quantization, data
            )
        )
        return len(self.tensors) - 1

    def add_constant(self, name: str, data: Array, quantization: QuantParams | None = None) -> int:
        """Add a constant; small ones with the same contents are one tensor. Returns its index."""
        if data.nbytes > _SHARED_BYTES:
            return self.add_tensor(name, data.shape, data.dtype.name, quantization, data)
        key = (data.dtype.name, data.shape, data.tobytes(), quantization)
        if key not in self._constants:
            self._constants[key] = self.add_tensor(
                name, data.shape, data.dtype.name, quantization, data
            )
        return self._constants[key]

    def rename(self, index: int, name: str) -> None:
        """Give a tensor another name; its old one is free again."""
        old = self.tensors[index]
        self._names.discard(old.name)
        self.tensors[index] = replace(old, name=self._unique(name))

    def _unique(self, name: str) -> str:
        unique, count = name, 1
        while unique in self._names:
            count += 1
            unique = f"{name}:{count}"
        self._names.add(unique)
        return unique

    def add_integers(self, name: str, values: Sequence[int] | Sequence[Sequence[int]]) -> int:
        """Add an int32 constant: a shape, axes, paddings. Returns its index."""
        return self.add_constant(name, np.asarray(values, dtype=np.int32))

    def add_op(
        self,
        code: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: str = "",
        **fields: Any,
    ) -> None:
        """Append an operator."""
        self.ops.append(TfliteOp(code, tuple(inputs), tuple(outputs), options, fields))

    def spec(self, index: int, layout: Layout) -> TensorSpec:
        """What is said of a tensor to the outside."""
        tensor = self.tensors[index]
        return TensorSpec(tensor.name, tensor.shape, tensor.dtype, layout, tensor.quantization)
