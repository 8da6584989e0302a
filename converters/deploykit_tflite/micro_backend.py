"""TensorFlow Lite for Microcontrollers in the runner's child process: its reference kernels in C++.

The package ``tflite-micro`` holds the interpreter that microcontrollers run, with every kernel of
TFLM and without those that a vendor replaces (CMSIS-NN). All memory that the file needs is taken
from one block, the arena, whose size an app must know beforehand: the smallest that works is
searched for, and the file is run in a block of that size. Structures hold pointers, which take 8
bytes here and 4 on a microcontroller: the size is an upper bound for one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from deploykit.errors import RunnerError
from deploykit.runners.base import Backend
from deploykit.tensors import Array
from deploykit_tflite.backends import count_samples, join_samples
from deploykit_tflite.native_output import captured_output

_ALIGNMENT = 16  # bytes: TFLM's own
_NO_OP = re.compile(r"Didn't find op for builtin opcode '(\w+)'")
_NOT_PREPARED = re.compile(r"Node (\w+) \(number (\d+)\) failed to prepare")
_QUOTED = 400  # characters of the runtime's words


class MicroBackend(Backend):
    """One .tflite file in TFLM's interpreter.

    Args:
        path: The file.
        options: None that matters: there is one kernel set, and one thread.

    Raises:
        RunnerError: an operator or a type that TFLM does not have, or its own words.
    """

    def __init__(self, path: str, options: Mapping[str, Any]) -> None:
        self._path = path
        self._runtime = runtime = import_module("tflite_micro.python.tflite_micro.runtime")
        self._data = Path(path).read_bytes()
        model = runtime.convert_bytearray_to_object(self._data)
        self._graph = model.subgraphs[0]
        # Untouched pages of a large block cost nothing.
        self._ample = 16 * len(self._data) + 4 * _tensor_bytes(self._graph) + (1 << 20)
        self._open(self._ample)
        self._arena = smallest_size(self._opens, self._ample)
        self._interpreter = self._open(self._arena)
        self._preserving: Any = None

    def _opens(self, arena: int) -> bool:
        try:
            self._open(arena)
        except RunnerError:
            return False
        return True

    def _open(self, arena: int, *, preserve: bool = False) -> Any:
        configs = self._runtime.InterpreterConfig
        config = configs.kPreserveAllTensors if preserve else configs.kAllocationRecording
        with captured_output() as words:
            try:
                return self._runtime.Interpreter.from_bytes(
                    self._data, arena_size=arena, intrepreter_config=config
                )
            except (RuntimeError, ValueError) as error:
                raise self._refusal(f"{words()} {error}") from error

    def _refusal(self, words: str) -> RunnerError:
        runtime = f"TFLM {version('tflite-micro')}"
        if missing := _NO_OP.search(words):
            return RunnerError(
                f"{runtime} lacks the operator {missing[1]}, which {self._path} asks for",
                advice="another precision, or a network without it",
            )
        if node := _NOT_PREPARED.search(words):
            return RunnerError(
                f"{runtime} does not take {node[1]}, operator {node[2]} of {self._path}: "
                f"{' '.join(words.split())[:_QUOTED]}",
                advice="its kernels take float32 and full int8 only, not float16 or w8 weights",
            )
        return RunnerError(f"{runtime} refuses {self._path}: {' '.join(words.split())[:_QUOTED]}")

    def info(self) -> Mapping[str, Any]:
        """What `deploykit.runners.base.Backend.info` asks for; ``details`` has the arena."""
        return {
            "runtime": "TFLM",
            "version": version("tflite-micro"),
            "kernels": "reference",
            "threads": 1,
            "details": {"arena_bytes": self._arena, "ops": len(self._graph.operators)},
        }

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `deploykit_tflite.backends.LiteRtBackend.run`."""

        def outputs() -> dict[str, Array]:
            found = enumerate(self._names(self._graph.outputs))
            return {name: np.array(self._interpreter.get_output(i)) for i, name in found}

        return self._run(self._interpreter, inputs, outputs)

    def run_all(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run once and return every tensor that is computed, by name, in an ample arena."""
        if self._preserving is None:
            self._preserving = self._open(2 * self._ample, preserve=True)
        computed = [*self._graph.inputs]
        for operator in self._graph.operators:
            computed += [int(t) for t in operator.outputs]

        def values() -> dict[str, Array]:
            found = zip(self._names(computed), computed, strict=True)
            return {name: tensor_of(self._preserving.GetTensor(i, 0)) for name, i in found}

        return self._run(self._preserving, inputs, values)

    def _names(self, tensors: Any) -> list[str]:
        return [self._graph.tensors[int(t)].name.decode() for t in tensors]

    def _run(
        self,
        interpreter: Any,
        inputs: Mapping[str, Array],
        results: Callable[[], dict[str, Array]],
    ) -> dict[str, Array]:
        names = self._names(self._graph.inputs)
        if set(inputs) != set(names):
            raise RunnerError(
                f"inputs {sorted(inputs)}", expected=f"the inputs of the file: {sorted(names)}"
            )
        details = {name: interpreter.get_input_details(i) for i, name in enumerate(names)}
        samples = count_samples(inputs, details)
        rows = []
        for index in range(samples):
            for i, name in enumerate(names):
                whole = inputs[name].shape == tuple(details[name]["shape"])
                sample = inputs[name] if whole else inputs[name][index : index + 1]
                interpreter.set_input(np.ascontiguousarray(sample), i)
            interpreter.invoke()
            rows.append(results())
        if samples == 1:
            return rows[0]
        return {name: join_samples([row[name] for row in rows]) for name in rows[0]}


def smallest_size(works: Callable[[int], bool], ample: int) -> int:
    """The smallest multiple of 16 bytes that works, by bisection; ``ample`` is one that does."""
    low, high = 0, -(-ample // _ALIGNMENT)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if works(middle * _ALIGNMENT) else (middle, high)
    return high * _ALIGNMENT


def tensor_of(described: Mapping[str, Any]) -> Array:
    """The array of what ``GetTensor`` gives."""
    return np.array(described["tensor_data"])


def _tensor_bytes(graph: Any) -> int:
    """Bytes of all tensors together, at 8 bytes an element: more than any type takes."""
    shapes = [t.shape for t in graph.tensors if t.shape is not None]
    return sum(8 * int(np.prod(shape, dtype=np.int64)) for shape in shapes)
