"""Faults of the kind that a converter makes, planted into a right stage, small enough to hide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper


def scale_a_channel(model: onnx.ModelProto) -> None:
    """One channel of the first layer's weights times 1.01, the heaviest."""
    weights = _weights(model, _layers(model)[0], 1)
    array = numpy_helper.to_array(weights).copy()
    heaviest = int(np.abs(array.reshape(len(array), -1)).sum(axis=1).argmax())
    array[heaviest] *= np.float32(1.01)
    weights.CopyFrom(numpy_helper.from_array(array, weights.name))


def drop_a_bias(model: onnx.ModelProto) -> None:
    """The largest bias of the first layer becomes zero."""
    bias = _weights(model, _layers(model)[0], 2)
    array = numpy_helper.to_array(bias).copy()
    array[int(np.abs(array).argmax())] = 0
    bias.CopyFrom(numpy_helper.from_array(array, bias.name))


def pad_the_wrong_side(model: onnx.ModelProto) -> None:
    """The first layer that pads does so on the other side: top and left for bottom and right."""
    for node in _layers(model):
        for attribute in node.attribute:
            if attribute.name == "pads" and any(attribute.ints):
                top, left, bottom, right = attribute.ints
                moved = [0, 0, top + bottom, left + right]
                attribute.ints[:] = moved if top or left else [bottom, right, 0, 0]
                return
    raise AssertionError("no layer pads")


FAULTS: tuple[Callable[[onnx.ModelProto], None], ...] = (
    scale_a_channel,
    drop_a_bias,
    pad_the_wrong_side,
)


def _layers(model: onnx.ModelProto) -> list[Any]:
    return [node for node in model.graph.node if node.op_type == "Conv"]


def _weights(model: onnx.ModelProto, node: Any, index: int) -> Any:
    return next(t for t in model.graph.initializer if t.name == node.input[index])
