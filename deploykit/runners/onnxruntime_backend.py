"""ONNX Runtime on the CPU: the runner of every stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from deploykit.runners.base import Backend
from deploykit.tensors import Array

if TYPE_CHECKING:
    import onnx
    import onnxruntime

_PROVIDER = "CPUExecutionProvider"

#: The session option that an app needs too, on an x86 CPU without VNNI.
EXACT_INTEGERS = "session.x64quantprecision"


class OrtBackend(Backend):
    """Runs one .onnx file.

    Options:
        threads: Threads within an op; 1 by default.
        optimization: ``disabled`` (default) runs the graph exactly as it is written, so that a
            quantized stage is *simulated*: each QuantizeLinear and DequantizeLinear rounds in
            float32, and no integer kernel takes their place. ``all`` is what an app would use,
            with integer sums that do not saturate (`EXACT_INTEGERS`).

    A file with a static batch of b runs any multiple of b samples, b at a time.
    """

    def __init__(self, path: str, options: Mapping[str, Any]) -> None:
        """Load the file.

        Raises:
            ValueError: an unknown option.
            Exception: ONNX Runtime's own, if it refuses the file.
        """
        unknown = sorted(set(options) - {"threads", "optimization"})
        if unknown:
            raise ValueError(f"unknown options {unknown}; there are 'threads' and 'optimization'")
        self._path = path
        self._threads = int(options.get("threads", 1))
        self._optimization = str(options.get("optimization", "disabled"))
        if self._optimization not in ("disabled", "all"):
            raise ValueError(f"optimization {self._optimization!r}; 'disabled' or 'all'")
        self._exact = True
        self._session = self._open(path)
        self._session_of_all: onnxruntime.InferenceSession | None = None

    def _open(self, model: str | bytes) -> onnxruntime.InferenceSession:
        if not self._exact:
            return self._open_with(model, exact=False)
        try:
            return self._open_with(model, exact=True)
        except Exception as error:
            # ONNX Runtime cannot change weights that two layers share; `info` says what ran.
            if "AddInitializedOrtValue" not in str(error):
                raise
            self._exact = False
            return self._open_with(model, exact=False)

    def _open_with(self, model: str | bytes, *, exact: bool) -> onnxruntime.InferenceSession:
        import onnxruntime

        levels = onnxruntime.GraphOptimizationLevel
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = levels.ORT_ENABLE_ALL
        # x86 CPUs without VNNI add products of 8-bit integers in pairs in 16 bits, which saturates.
        # This takes kernels that do not, as those of ARM; with VNNI, and on ARM, nothing changes.
        options.add_session_config_entry(EXACT_INTEGERS, str(int(exact)))
        if self._optimization == "disabled":
            options.graph_optimization_level = levels.ORT_DISABLE_ALL
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        return onnxruntime.InferenceSession(model, options, providers=[_PROVIDER])

    def info(self) -> Mapping[str, Any]:
        """See `Backend.info`."""
        import onnxruntime

        return {
            "runtime": "ONNX Runtime",
            "version": onnxruntime.__version__,
            "kernels": self._session.get_providers()[0],
            "threads": self._threads,
            "details": {"optimization": self._optimization, EXACT_INTEGERS: str(int(self._exact))},
        }

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `Backend.run`."""
        names = [value.name for value in self._session.get_outputs()]
        parts = [self._session.run(names, part) for part in self._batches(inputs)]
        if len(parts) == 1:
            return dict(zip(names, parts[0], strict=True))
        return {name: np.concatenate([part[i] for part in parts]) for i, name in enumerate(names)}

    def _batches(self, inputs: Mapping[str, Array]) -> list[dict[str, Array]]:
        counts = set()
        for value in self._session.get_inputs():
            batch = value.shape[0] if value.shape else None
            given = inputs[value.name].shape if value.name in inputs else ()
            if isinstance(batch, int) and batch > 0 and given and given[0] % batch == 0:
                counts.add(given[0] // batch)
            else:
                counts.add(1)  # a dynamic batch takes all at once; a wrong one ONNX Runtime refuses
        count = counts.pop() if len(counts) == 1 else 1
        if count <= 1:
            return [dict(inputs)]
        split = {name: np.split(array, count) for name, array in inputs.items()}
        return [{name: parts[i] for name, parts in split.items()} for i in range(count)]

    def run_all(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Every tensor that a node of the main graph makes, outputs included, for one batch.

        With optimization, of a quantized model: the integers that QuantizeLinear nodes make. They
        can be had without taking the fusions apart that are to be looked at; floats cannot.

        Raises:
            ValueError: more samples than the file's batch.
        """
        if len(self._batches(inputs)) > 1:
            raise ValueError("values can be had for one batch at a time only")
        if self._session_of_all is None:
            import onnx

            model = onnx.load(self._path)
            fused = self._optimization == "all"
            self._session_of_all = self._open(_with_all_outputs(model, integers_only=fused))
        session = self._session_of_all
        names = [value.name for value in session.get_outputs()]
        values = session.run(names, dict(inputs))
        # An op may also make sequences or nothing: only tensors can be compared.
        return {n: v for n, v in zip(names, values, strict=True) if isinstance(v, np.ndarray)}


def _with_all_outputs(model: onnx.ModelProto, *, integers_only: bool) -> bytes:
    """The model with every value as an output, those that were outputs first.

    Args:
        model: Changed.
        integers_only: If it has QuantizeLinear nodes, take what they make, and no other values.
    """
    import onnx

    quantizing = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    nodes = quantizing if integers_only and quantizing else model.graph.node

    known = {value.name: value for value in model.graph.value_info}
    present = {value.name for value in model.graph.output}
    for node in nodes:
        for name in node.output:
            if name and name not in present:
                present.add(name)
                # Without a type, ONNX Runtime infers it.
                model.graph.output.append(known.get(name) or onnx.ValueInfoProto(name=name))
    return bytes(model.SerializeToString())
