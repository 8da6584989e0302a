"""LiteRT, and its older selves, in the runner's child process.

The same interpreter comes in three packages, with one interface: ``ai_edge_litert`` (LiteRT),
``tensorflow`` (TensorFlow Lite), and ``tflite_runtime`` (TensorFlow Lite by itself, until 2.14,
which needs numpy < 2 and therefore a separate environment).

Kernel sets:

    xnnpack     the default of phones: XNNPACK takes what it can, optimized kernels the rest
    builtin     optimized kernels without XNNPACK
    reference   reference kernels: slow, and bit-exact over processors
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np

from deploykit.errors import RunnerError
from deploykit.runners.base import Backend
from deploykit.tensors import Array

_KERNELS = {
    "xnnpack": ("AUTO", "XNNPACK"),
    "builtin": ("BUILTIN_WITHOUT_DEFAULT_DELEGATES", "builtin"),
    "reference": ("BUILTIN_REF", "reference"),
}
_DELEGATE = "DELEGATE"


@dataclass(frozen=True)
class _Package:
    """Where an interpreter is.

    Attributes:
        module: Has ``Interpreter`` and ``OpResolverType``.
        runtime: What it calls itself.
        distribution: What pip calls it.
    """

    module: str
    runtime: str
    distribution: str


_PACKAGES = {
    "ai_edge_litert": _Package("ai_edge_litert.interpreter", "LiteRT", "ai-edge-litert"),
    # pip knows it by several names (tensorflow, tensorflow-cpu): it tells its version itself.
    "tensorflow": _Package("tensorflow.lite.python.interpreter", "TensorFlow Lite", ""),
    "tflite_runtime": _Package("tflite_runtime.interpreter", "tflite-runtime", "tflite-runtime"),
}

# What every version of the runtime says of an operator that it does not have.
_MISSING_VERSION = re.compile(r"Didn't find op for builtin opcode '(\w+)' version '(\d+)'")
_MISSING_OP = re.compile(r"Op builtin_code out of range: (\d+)")


class LiteRtBackend(Backend):
    """One .tflite file in an interpreter.

    Args:
        path: The file.
        options: ``kernels``: one of the module's kernel sets, ``xnnpack`` by default;
            ``threads``: 1 by default; ``package``: the one that has the interpreter,
            ``ai_edge_litert`` by default.

    Raises:
        RunnerError: an unknown kernel set or package, an operator that the runtime lacks, or the
            runtime's own words.
    """

    def __init__(self, path: str, options: Mapping[str, Any]) -> None:
        kernels = str(options.get("kernels", "xnnpack"))
        if kernels not in _KERNELS:
            raise RunnerError(f"kernel set {kernels!r}", expected=f"one of {', '.join(_KERNELS)}")
        package = str(options.get("package", "ai_edge_litert"))
        if package not in _PACKAGES:
            raise RunnerError(f"package {package!r}", expected=f"one of {', '.join(_PACKAGES)}")
        self._path = path
        self._package = package
        self._kernels = kernels
        self._threads = int(options.get("threads", 1))
        self._interpreter = self._open(preserve=False)
        self._preserving: Any = None

    def _open(self, *, preserve: bool) -> Any:
        # TensorFlow's messages about itself; nothing is left of what matters.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        module = import_module(_PACKAGES[self._package].module)
        resolver = module.OpResolverType[_KERNELS[self._kernels][0]]
        with warnings.catch_warnings():
            # It says that keeping all tensors takes memory, which is what run_all is for.
            warnings.simplefilter("ignore", UserWarning)
            try:
                interpreter = module.Interpreter(
                    model_path=self._path,
                    num_threads=self._threads,
                    experimental_op_resolver_type=resolver,
                    experimental_preserve_all_tensors=preserve,
                )
                interpreter.allocate_tensors()
            except (RuntimeError, ValueError) as error:
                raise self._refusal(str(error)) from error
        return interpreter

    def _refusal(self, words: str) -> RunnerError:
        runtime = f"{_PACKAGES[self._package].runtime} {self._version()}"
        if missing := _MISSING_VERSION.search(words):
            return RunnerError(
                f"{runtime} lacks {missing[1]} version {missing[2]}, which {self._path} asks for",
                advice="a newer runtime has it (deploykit inspect FILE says which); or another "
                "precision",
            )
        if missing := _MISSING_OP.search(words):
            return RunnerError(
                f"{runtime} lacks the operator with the code {missing[1]}, which {self._path} "
                "asks for",
                advice="a newer runtime has it (deploykit inspect FILE says which)",
            )
        return RunnerError(f"{runtime} refuses {self._path}: {words}")

    def _version(self) -> str:
        distribution = _PACKAGES[self._package].distribution
        return version(distribution) if distribution else import_module(self._package).__version__

    def info(self) -> Mapping[str, Any]:
        """What `deploykit.runners.base.Backend.info` asks for; ``details`` has the partitions."""
        details = count_delegated(self._interpreter)
        # An old XNNPACK leaves a whole int8 file to the optimized kernels.
        unused = self._kernels == "xnnpack" and not details["partitions"]
        return {
            "runtime": _PACKAGES[self._package].runtime,
            "version": self._version(),
            "kernels": _KERNELS["builtin" if unused else self._kernels][1],
            "threads": self._threads,
            "details": details,
        }

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run once, or once for each sample where the file takes one at a time.

        Args:
            inputs: Input name → array in the file's own layout and dtype; n samples where the
                file has batch 1.

        Returns:
            Output name → array; of n samples, where the file's outputs have batch 1 too.

        Raises:
            RunnerError: a name, shape or dtype that is not the file's.
        """
        outputs = self._interpreter.get_output_details()
        return _run(self._interpreter, inputs, outputs)

    def run_all(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run once and return every tensor that is computed, by name.

        A second interpreter keeps them all. XNNPACK then takes each operator by itself: the same
        kernels, without what it fuses over operators. Old runtimes let an operator write over what
        it reads even so; what was written over is omitted.
        """
        if self._preserving is None:
            self._preserving = self._open(preserve=True)
        kept = kept_tensors(self._preserving)
        details = [d for d in self._preserving.get_tensor_details() if d["index"] in kept]
        return _run(self._preserving, inputs, details)


def kept_tensors(interpreter: Any) -> set[int]:
    """Inputs and computed tensors that still hold their own values after a run.

    Of tensors that share memory, the one that is computed last.
    """
    computed = [d["index"] for d in interpreter.get_input_details()]
    for op in interpreter._get_ops_details():
        if op["op_name"] != _DELEGATE:
            computed += [int(index) for index in op["outputs"]]
    owners = {}
    for index in computed:
        view = interpreter.tensor(index)()
        owners[view.__array_interface__["data"][0]] = index
    return set(owners.values())


def count_delegated(interpreter: Any) -> dict[str, int]:
    """How many operators a delegate took, of how many, in how many partitions."""
    ops = interpreter._get_ops_details()
    delegates = [op for op in ops if op["op_name"] == _DELEGATE]
    plain = [op for op in ops if op["op_name"] != _DELEGATE]
    if not delegates:
        return {"partitions": 0, "delegated_ops": 0, "ops": len(plain)}
    # A delegate stands behind the operators that it took; those that it did not take are run by
    # the interpreter itself, and the interpreter tells only what is in the plan now.
    taken = len(_covered(plain, delegates))
    return {"partitions": len(delegates), "delegated_ops": taken, "ops": len(plain)}


def _covered(plain: list[Any], delegates: list[Any]) -> set[int]:
    """Operators whose results a delegate computes: walk back from what the delegates write.

    The operators between a delegate's inputs and its outputs are its own.
    """
    producer = {int(t): i for i, op in enumerate(plain) for t in op["outputs"]}
    covered: set[int] = set()
    for delegate in delegates:
        stop = {int(t) for t in delegate["inputs"]}
        waiting = [int(t) for t in delegate["outputs"]]
        while waiting:
            tensor = waiting.pop()
            op = producer.get(tensor)
            if tensor in stop or op is None or op in covered:
                continue
            covered.add(op)
            waiting.extend(int(t) for t in plain[op]["inputs"] if t >= 0)
    return covered


def _run(
    interpreter: Any, inputs: Mapping[str, Array], wanted: list[dict[str, Any]]
) -> dict[str, Array]:
    details = {d["name"]: d for d in interpreter.get_input_details()}
    if set(inputs) != set(details):
        raise RunnerError(
            f"inputs {sorted(inputs)}", expected=f"the inputs of the file: {sorted(details)}"
        )
    samples = count_samples(inputs, details)
    rows: dict[str, list[Array]] = {d["name"]: [] for d in wanted}
    for index in range(samples):
        for name, array in inputs.items():
            whole = tuple(array.shape) == tuple(details[name]["shape"])
            sample = array if whole else array[index : index + 1]
            interpreter.set_tensor(details[name]["index"], np.ascontiguousarray(sample))
        interpreter.invoke()
        for detail in wanted:
            rows[detail["name"]].append(interpreter.get_tensor(detail["index"]))
    if samples == 1:
        return {name: found[0] for name, found in rows.items()}
    return {name: join_samples(found) for name, found in rows.items()}


def count_samples(inputs: Mapping[str, Array], details: Mapping[str, Any]) -> int:
    counts = set()
    for name, array in inputs.items():
        shape, dtype = tuple(details[name]["shape"]), np.dtype(details[name]["dtype"])
        fits = tuple(array.shape) == shape or (
            len(shape) > 1 and shape[0] == 1 and tuple(array.shape[1:]) == shape[1:]
        )
        if not fits or array.dtype != dtype:
            raise RunnerError(
                f"input '{name}' of shape {tuple(array.shape)} and dtype {array.dtype}",
                expected=f"shape {shape} (n samples where that starts with 1) and dtype {dtype}",
            )
        counts.add(1 if tuple(array.shape) == shape else int(array.shape[0]))
    if len(counts) != 1 or 0 in counts:
        raise RunnerError("inputs with different numbers of samples, or none")
    return counts.pop()


def join_samples(found: list[Array]) -> Array:
    if found[0].ndim and found[0].shape[0] == 1:
        return np.concatenate(found)
    return np.stack(found)
