"""What the layers of a float graph read over the calibration set, as a stream.

One ONNX Runtime session gives the inputs of all layers for one sample at a time; what is kept of
them are the second moments of their windows, whose size does not depend on the number of samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from deploykit.calibration.data import CalibrationData
from deploykit.tensors import Array, FloatArray
from deploykit_quantize.weighted_layer import WeightedLayer

if TYPE_CHECKING:
    import onnx_ir as ir


def open_values(graph: ir.Model, names: Sequence[str]) -> Any:
    """An ONNX Runtime session, on one thread, that gives the named values of a graph.

    Args:
        graph: Any stage.
        names: Values that nodes of it make, without repetition.
    """
    import onnx_ir as ir
    from onnx import TensorProto, helper

    proto = ir.to_proto(graph)
    known = {output.name for output in proto.graph.output}
    for name in names:
        if name not in known:
            proto.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return open_session(proto.SerializeToString())


def open_session(model: bytes) -> Any:
    """An ONNX Runtime session on one thread that computes what the graph says."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    return ort.InferenceSession(
        model,
        options,
        providers=["CPUExecutionProvider"],
        # It rounds the weights of float layers that read integers.
        disabled_optimizers=["WeightBiasQuantization"],
    )


def stream_values(
    graph: ir.Model, names: Sequence[str], data: CalibrationData
) -> Iterator[dict[str, FloatArray]]:
    """For each batch of the graph in order: its inputs and the named values, by name."""
    given = {value.name for value in graph.graph.inputs}
    made = [name for name in dict.fromkeys(names) if name not in given]
    session = open_values(graph, made)
    for batch in data.batches(batch_of(graph)):
        values = session.run(made, batch) if made else []
        yield {**batch, **dict(zip(made, values, strict=True))}


def batch_of(graph: ir.Model) -> int:
    """How many samples the graph takes at a time: the first axis of its first input."""
    shape = graph.graph.inputs[0].shape
    first = shape[0] if shape else 1
    return first if isinstance(first, int) else 1


def collect_moments(
    graph: ir.Model, layers: Sequence[WeightedLayer], data: CalibrationData
) -> dict[tuple[object, ...], Array]:
    """Second moments of what each layer reads.

    Args:
        graph: The float graph that the layers are nodes of.
        layers: The layers.
        data: The calibration set; it is read once.

    Returns:
        `WeightedLayer.window_key` → E[x x^T] over windows, float32 (groups, n, n).
    """
    reading = {layer.window_key: layer for layer in layers}
    sums: dict[tuple[object, ...], Array] = {}
    counts = dict.fromkeys(reading, 0)
    streamed = stream_values(graph, [layer.source for layer in reading.values()], data)
    for number, values in enumerate(streamed):
        for key, layer in reading.items():
            most = layer.windows_of_a_sample(data.count)
            windows = layer.windows(values[layer.source], most, number)
            moments = windows @ windows.transpose(0, 2, 1)
            sums[key] = sums[key] + moments if key in sums else moments
            counts[key] += windows.shape[-1]
    return {key: total / counts[key] for key, total in sums.items()}
