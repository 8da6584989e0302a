"""Running a fused model over a calibration set and filling the table.

Every value of the graph is an output of one ONNX Runtime session, on one thread, and all samples
go through it once, in the model's own batch size (which is baked into exported graphs: into the
shapes of Reshape nodes, for one). Statistics take fixed memory: `deploykit.calibration.histogram`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from deploykit.calibration.check import SetObserver
from deploykit.calibration.data import CalibrationData
from deploykit.calibration.histogram import RunningStatistics
from deploykit.calibration.table import CalibrationTable
from deploykit.errors import DataError
from deploykit.graph import native
from deploykit.graph.read_qdq import is_float
from deploykit.graph.reading import is_constant
from deploykit.model import Model
from deploykit.preprocess import Preprocess
from deploykit.tensors import FloatArray, TensorSpec

if TYPE_CHECKING:
    import onnx_ir as ir


def collect_statistics(
    model: Model,
    data: CalibrationData,
    *,
    allow_suspicious: bool = False,
) -> CalibrationTable:
    """Statistics of every float value of a fused model, its input included.

    Minimum, maximum, mean and deviation are of all elements. The histogram takes a fixed share of
    each value's elements (`RunningStatistics`), on bins that grow with the range, so that one pass
    is enough.

    Args:
        model: The fused stage.
        data: The calibration set; it is read once, as a stream.
        allow_suspicious: Warn of a set that looks like noise instead of refusing it.

    Raises:
        UnsupportedModelError: ONNX Runtime crashes on a model that came as an .onnx file.
        DataError: a set that cannot be right (`deploykit.calibration.check`), a sample that does
            not fit the input, or a value that is NaN or infinite.
    """
    observer = SetObserver()
    statistics: dict[str, RunningStatistics] = {}
    session, names, fingerprint = _open_session(model)
    given = [spec.name for spec in model.inputs]
    for feed in _observed(data, model.inputs, observer).batches(model.inputs[0].batch):
        # The list is emptied as it is read: the next run must not find all of it in memory.
        values = [*session.run(names, feed)[::-1], *(feed[name] for name in reversed(given))]
        for name in (*given, *names):
            value = values.pop()
            if not statistics.setdefault(name, RunningStatistics()).add(value):
                raise DataError(
                    f"value '{name}' of model '{model.name}' is NaN or infinite for a "
                    "calibration sample",
                    expected="finite activations",
                    advice="look for NaN in the checkpoint, or for overflow before this value",
                )
    return CalibrationTable(
        values={name: one.result() for name, one in statistics.items()},
        samples=observer.seen,
        data_fingerprint=observer.fingerprint(),
        model_fingerprint=fingerprint,
        warnings=observer.check(_contracts(model), allow_suspicious=allow_suspicious),
    )


def _observed(
    data: CalibrationData, inputs: Sequence[TensorSpec], observer: SetObserver
) -> CalibrationData:
    """The same samples, each checked against the inputs and shown to the observer when read."""

    def read(index: int) -> Mapping[str, FloatArray]:
        sample = data.read(index)
        for spec in inputs:
            if spec.name not in sample or sample[spec.name].shape != spec.shape[1:]:
                found = sample[spec.name].shape if spec.name in sample else "none"
                raise DataError(
                    f"a calibration sample of shape {found}",
                    expected=f"{spec.shape[1:]}, as the input '{spec.name}'",
                )
        observer.add(sample)
        return sample

    return CalibrationData(data.description, data.count, read)


def _contracts(model: Model) -> dict[str, Preprocess]:
    """The preprocessing contract of the only input, or of those that read what it makes."""
    contract = model.preprocess
    if contract is None:
        return {}
    made = (contract.channels, *contract.size)
    alone = len(model.inputs) == 1
    return {s.name: contract for s in model.inputs if alone or s.shape[1:] == made}


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
    if model.source.kind == "onnx":  # others are written by an exporter that we call
        native.try_model(serialized)
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
