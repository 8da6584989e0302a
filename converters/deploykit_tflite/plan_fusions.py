"""Which activations become part of the operator before them.

Most TFLite operators can clamp their output (none, RELU, RELU6, RELU_N1_TO_1). A Relu or Clip is
fused when it is the only reader of its producer's output and that output is not one of the
graph's own. In int8 the clamp may be no more than the saturation of the output's integers: then
nothing is left of the activation at all. Where the quantized stage gives the value between the
two no scale, they are always one operator (or one with a clamp behind it on the same grid).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from deploykit.graph.node_fields import shape_of
from deploykit.graph.op_facts import Interval, clamp_of
from deploykit.graph.ops import STORED_CLAMPED
from deploykit.tensors import QuantParams
from deploykit_tflite import layout
from deploykit_tflite.tflite_graph import (
    ACTIVATION_NONE,
    ACTIVATION_RELU,
    ACTIVATION_RELU6,
    ACTIVATION_RELU_N1_TO_1,
)

if TYPE_CHECKING:
    import onnx_ir as ir

Bounds = Interval

_BOUNDS: dict[Bounds, int] = {
    (0.0, np.inf): ACTIVATION_RELU,
    (0.0, 6.0): ACTIVATION_RELU6,
    (-1.0, 1.0): ACTIVATION_RELU_N1_TO_1,
}


@dataclass(frozen=True)
class FusionPlan:
    """What is fused.

    Attributes:
        fused: Producer → (activation node, its bounds).
        absorbed: The activation nodes that need no lowering of their own.
        kept_nhwc: The Reshape nodes that flatten a feature map for linear layers alone: they leave
            its elements in NHWC order, and the layers' weights follow.
    """

    fused: Mapping[ir.Node, tuple[ir.Node, Bounds]] = field(default_factory=dict)
    absorbed: frozenset[ir.Node] = frozenset()
    kept_nhwc: frozenset[ir.Node] = frozenset()


def activation_of(bounds: Bounds, params: QuantParams | None) -> int | None:
    """The fused activation that clamps to these bounds; None if no such one exists.

    Args:
        bounds: Low and high, reals.
        params: Of the clamped output, if it is quantized: bounds that its integers cannot exceed
            need no clamp.
    """
    if bounds == (-np.inf, np.inf) or (params is not None and is_saturation(bounds, params)):
        return ACTIVATION_NONE
    return _BOUNDS.get(bounds)


def is_saturation(bounds: Bounds, params: QuantParams) -> bool:
    """Whether no integer of these parameters stands for a real outside of the bounds.

    Half a step of tolerance: a real within it rounds to the same integer.
    """
    step = params.scale[0]
    low, high = (step * (edge - params.zero_point[0]) for edge in params.bounds)
    return low >= bounds[0] - 0.5 * step and high <= bounds[1] + 0.5 * step


def plan_fusions(
    graph: ir.Graph,
    params: Mapping[str, QuantParams],
    runs_in_integers: Callable[[ir.Node], bool],
) -> FusionPlan:
    """Find every activation that fuses.

    Args:
        graph: The graph to be lowered.
        params: Value name → quantization, for the values that are integers in the file.
        runs_in_integers: Whether a node computes in integers.
    """
    fused: dict[ir.Node, tuple[ir.Node, Bounds]] = {}
    for node in graph:
        bounds = clamp_of(node)
        value = node.inputs[0] if bounds is not None else None
        producer = value.producer() if value is not None else None
        if bounds is None or value is None or producer is None or producer.domain:
            continue
        if value.is_graph_output() or len(value.uses()) != 1:
            continue
        before = params.get(value.name or "")
        after = params.get(node.outputs[0].name or "")
        if before is None and runs_in_integers(node):
            fused[producer] = (node, bounds)
        elif producer.op_type not in STORED_CLAMPED or (before is not None and before != after):
            continue  # on two grids it is rounded twice: fusing would skip the first
        elif activation_of(bounds, after) is not None:
            fused[producer] = (node, bounds)
    return FusionPlan(
        fused,
        absorbed=frozenset(node for node, _ in fused.values()),
        kept_nhwc=frozenset(node for node in graph if _flattens_for_linear_layers(node)),
    )


def _flattens_for_linear_layers(node: ir.Node) -> bool:
    if node.op_type != "Reshape" or node.domain or node.inputs[0] is None:
        return False
    output, uses = node.outputs[0], node.outputs[0].uses()
    if output.is_graph_output() or not uses:
        return False
    if not all(u.node.op_type == "Gemm" and not u.node.domain and u.idx == 0 for u in uses):
        return False
    shape = shape_of(node.inputs[0])
    return (
        len(shape) == layout.HELD_RANK
        and shape_of(output) == (shape[0], shape[1] * shape[2] * shape[3])
        and layout.moves_data(shape, layout.NHWC_FROM_NCHW)
    )
