"""Running a fused model over a calibration set and filling the table.

Every value of the graph is an output of one ONNX Runtime session, on one thread, and all samples
go through it once, one at a time (batch sizes are baked into exported graphs: into the shapes of
Reshape nodes, for one). Statistics take fixed memory: `deploykit.calibration.histogram`.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from deploykit.calibration.check import DataObserver, check_data
from deploykit.calibration.data import CalibrationData
from deploykit.calibration.histogram import RunningStatistics
from deploykit.calibration.table import CalibrationTable
from deploykit.errors import DataError
from deploykit.graph.read_qdq import is_float
from deploykit.graph.reading import is_constant
from deploykit.model import Model
from deploykit.tensors import FloatArray

if TYPE_CHECKING:
    import onnx_ir as ir


def collect_statistics(
    model: Model,
    data: CalibrationData,
    batch_size: int = 8,
    *,
    allow_suspicious: bool = False,
) -> CalibrationTable:
    """Statistics of every float value of a fused model, its input included.

    Minimum, maximum, mean and deviation are of all elements. The histogram takes a fixed share of
    each value's elements (`RunningStatistics`), on bins that grow with the range, so that one pass
    is enough.

    Args:
        model: The fused stage, with one input.
        data: The calibration set; it is read once, as a stream.
        batch_size: How many samples are prepared at a time.
        allow_suspicious: Warn of a set that looks like noise instead of refusing it.

    Raises:
        DataError: a set that cannot be right (`deploykit.calibration.check`), a sample that does
            not fit the input, or a value that is NaN or infinite.
    """
    if len(model.inputs) != 1:
        raise DataError(
            f"model '{model.name}' has {len(model.inputs)} inputs", expected="one, to calibrate it"
        )
    (model_input,) = model.inputs
    observer = DataObserver()
    statistics: dict[str, RunningStatistics] = {}
    session, names, fingerprint = _open_session(model)
    waiting: list[FloatArray] = []
    for batch in data.batches(batch_size):
        for sample in batch:
            if sample.shape != model_input.shape[1:]:
                raise DataError(
                    f"a calibration sample of shape {sample.shape}",
                    expected=f"{model_input.shape[1:]}, as the input '{model_input.name}'",
                )
            observer.add(sample)
            waiting.append(sample)
            if len(waiting) < model_input.shape[0] and observer.seen < data.count:
                continue
            # A model of a fixed batch: the last sample is repeated to fill the last one.
            waiting += [sample] * (model_input.shape[0] - len(waiting))
            feed = np.stack(waiting)
            waiting.clear()
            # The list is emptied as it is read: the next run must not find all of it in memory.
            values = [*session.run(names, {model_input.name: feed})[::-1], feed]
            for name in (model_input.name, *names):
                value = values.pop()
                if not statistics.setdefault(name, RunningStatistics()).add(value):
                    raise DataError(
                        f"value '{name}' of model '{model.name}' is NaN or infinite for a "
                        "calibration sample",
                        expected="finite activations",
                        advice="look for NaN in the checkpoint, or for overflow before this value",
                    )
    seen = observer.result()
    return CalibrationTable(
        values={name: one.result() for name, one in statistics.items()},
        samples=seen.samples,
        data_fingerprint=observer.fingerprint(),
        model_fingerprint=fingerprint,
        warnings=check_data(seen, model.preprocess, allow_suspicious=allow_suspicious),
    )


def fingerprint_model(model: Model) -> str:
    """SHA-256 over a stage as an .onnx file; what a table calls its ``model_fingerprint``."""
    return hashlib.sha256(model.serialized()).hexdigest()


def _open_session(model: Model) -> tuple[Any, list[str], str]:
    """A session that gives every value; the values' names; the model's fingerprint."""
    import onnx_ir as ir
    import onnxruntime as ort

    observed = observed_values(model.graph)
    proto = ir.to_proto(model.graph)
    fingerprint = hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest()
    outputs = {output.name for output in proto.graph.output}
    for value in observed:
        if value.name not in outputs:
            proto.graph.output.append(_describe(value))
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # Values that are outputs are never fused away; the basic level is what can be done around them.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    serialized = proto.SerializeToString()
    del proto  # one copy of the weights less while the session makes its own
    session = ort.InferenceSession(serialized, options, providers=["CPUExecutionProvider"])
    return session, [value.name or "" for value in observed], fingerprint


def observed_values(model: ir.Model) -> list[ir.Value]:
    """Every float value that a node makes, in the graph's order; constants are omitted."""
    return [
        value
        for node in model.graph
        for value in node.outputs
        if value.name and is_float(value) and not is_constant(value)
    ]


def _describe(value: ir.Value) -> Any:
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(value.name or "", TensorProto.FLOAT, None)
