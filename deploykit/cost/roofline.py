"""Predicting time from counts: the roofline, summed over layers.

A layer takes the longer of its arithmetic at the machine's speed and its memory access at the
machine's bandwidth (Williams et al. 2009), and a fixed time to start. Where a machine does not
overlap the two, it takes their sum. The three constants of a machine are measured on probes, never
on what is predicted.
"""

from __future__ import annotations

from dataclasses import dataclass

from deploykit.cost.layer import LayerCost, StageCost


@dataclass(frozen=True)
class Machine:
    """What a runtime on a machine was seen to do.

    Attributes:
        flops_per_us: FLOPs a microsecond of a layer that is bound by arithmetic.
        bytes_per_us: Bytes a microsecond of a layer that is bound by memory.
        layer_us: Microseconds that each layer takes beyond that.
    """

    flops_per_us: float
    bytes_per_us: float
    layer_us: float


def predict_layer_us(layer: LayerCost, machine: Machine, *, overlap: bool = True) -> float:
    """Predicted microseconds of one layer; 0 for a view.

    Args:
        layer: What it costs.
        machine: What it runs on.
        overlap: Whether arithmetic goes on while memory is waited for.

    Raises:
        ValueError: the layer's op has no known cost, so nothing can be predicted.
    """
    if not layer.counted:
        raise ValueError(f"{layer.op_type} has no known cost")
    if layer.is_view:
        return 0.0
    arithmetic = layer.flops / machine.flops_per_us
    memory = layer.mac_bytes / machine.bytes_per_us
    longest = max(arithmetic, memory) if overlap else arithmetic + memory
    return longest + machine.layer_us


def predict_us(stage: StageCost, machine: Machine, *, overlap: bool = True) -> float:
    """Predicted microseconds of a whole stage; see `predict_layer_us`.

    Raises:
        ValueError: an op has no known cost.
    """
    return sum(predict_layer_us(layer, machine, overlap=overlap) for layer in stage.layers)
