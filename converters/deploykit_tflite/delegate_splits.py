"""Which operators XNNPACK leaves to the interpreter's own kernels, so that the graph falls apart.

The tables were found by asking LiteRT 2.3, and `delegate_splits_test.py` asks it again: for each
operator, a graph with a convolution before and behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploykit.graph.op_facts import interval
from deploykit.lint.finding import DelegateSplit
from deploykit.model import Model, Precision

if TYPE_CHECKING:
    import onnx_ir as ir

    from deploykit.calibration.table import CalibrationTable, ValueStatistics
    from deploykit_tflite.tflite_graph import TfliteGraph, TfliteOp

LIBRARY = "XNNPACK"

#: Left in floats and in integers.
LEFT_ALWAYS = frozenset(
    {
        *("PADV2", "MIRROR_PAD", "GATHER", "STRIDED_SLICE", "RESIZE_NEAREST_NEIGHBOR"),
        *("BROADCAST_TO", "POW"),
    }
)

#: Left where they compute in integers.
LEFT_IN_INTEGERS = frozenset(
    {"SOFTMAX", "PRELU", "MAXIMUM", "MINIMUM", "RELU_N1_TO_1", "BATCH_MATMUL"}
)

_INTEGERS = ("int8", "uint8", "int16")
_ANY_RANGE = (-6.0, 6.0)


def find_delegate_splits(fused: Model, precision: Precision) -> tuple[DelegateSplit, ...]:
    """The operators of the artefact that XNNPACK would leave, in its order.

    For int8 the stage is quantized with made-up ranges: which operators come of it does not depend
    on the data, only what their numbers are.

    Args:
        fused: A fused stage.
        precision: What the artefact is to compute in.

    Raises:
        UnsupportedOpsError: with every op that has no lowering.
    """
    from deploykit_tflite.lower_graph import lower_graph
    from deploykit_tflite.options import WriteOptions
    from deploykit_tflite.stage_graph import stage_graph

    stage = fused if precision is not Precision.INT8 else _quantized(fused)
    graph, _ = stage_graph(stage, precision)
    lowered = lower_graph(graph, precision, WriteOptions.parse({}, precision))
    values = {tensor: value for value, tensor in lowered.value_tensors.items()}
    return tuple(
        DelegateSplit(_value_of(op, lowered.graph, values), op.code, LIBRARY)
        for op in lowered.graph.ops
        if is_left(op, lowered.graph)
    )


def is_left(op: TfliteOp, graph: TfliteGraph) -> bool:
    """Whether XNNPACK leaves an operator of a graph."""
    if op.code in LEFT_ALWAYS:
        return True
    return op.code in LEFT_IN_INTEGERS and graph.tensors[op.outputs[0]].dtype in _INTEGERS


def _value_of(op: TfliteOp, graph: TfliteGraph, values: dict[int, str]) -> str:
    """The value of the stage that an operator makes, or that is made of what it makes."""
    tensor = op.outputs[0]
    for later in [op, *(o for o in graph.ops if o is not op)]:
        if later is not op and tensor not in later.inputs:
            continue
        tensor = later.outputs[0]
        if tensor in values:
            return values[tensor]
    return graph.tensors[op.outputs[0]].name


def _quantized(fused: Model) -> Model:
    from deploykit.graph.qdq import has_qdq
    from deploykit_quantize.quantizer import quantize_model
    from deploykit_tflite.policy import policy_of

    policy = policy_of(Precision.INT8)
    if policy is None:
        raise AssertionError("int8 has no policy")
    if has_qdq(fused.graph):
        return fused
    return quantize_model(fused, policy, _made_up_table(fused.graph))


def _made_up_table(model: ir.Model) -> CalibrationTable:
    from deploykit.calibration.table import CalibrationTable

    values = {value.name or "": _ANY_RANGE for value in model.graph.inputs}
    for node in model.graph:
        found = interval(node, lambda _: _ANY_RANGE) or _ANY_RANGE
        found = max(found[0], _ANY_RANGE[0]), min(found[1], _ANY_RANGE[1])
        values.update({value.name or "": found for value in node.outputs})
    statistics = {name: _statistics(low, high) for name, (low, high) in values.items()}
    return CalibrationTable(statistics, 1, "made up", "made up")


def _statistics(low: float, high: float) -> ValueStatistics:
    from deploykit.calibration.table import ValueStatistics

    middle, spread = (low + high) / 2, max((high - low) / 4, 1e-3)
    return ValueStatistics(low, max(high, low + 1e-3), middle, spread, (1,), 1)
