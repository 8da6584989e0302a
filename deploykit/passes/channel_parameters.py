"""Parameters that are one a channel: as many as there are channels.

Neither ONNX's shape inference nor ONNX Runtime's opening of a session compares them, and a kernel
that reads eight numbers of five reads what lies behind them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from deploykit.errors import UnsupportedModelError
from deploykit.graph.reading import input_at, read_int, static_shape
from deploykit.printable import printable_name

if TYPE_CHECKING:
    import onnx_ir as ir


def check_channel_parameters(graph: ir.Graph) -> None:
    """Refuse biases, scales and means that do not fit what they are added to.

    Raises:
        UnsupportedModelError: with the node, the parameter and the shapes.
    """
    for node in graph:
        for index, expected in _expected_shapes(node):
            value = input_at(node, index)
            found = static_shape(value)
            if value is None or found is None or _fits(node, found, expected):
                continue
            raise UnsupportedModelError(
                f"the {node.op_type} '{printable_name(node.name or '')}' has a parameter "
                f"'{printable_name(value.name or '')}' of shape {found}",
                expected=f"{expected}",
                advice="the model contradicts itself: check the file, or export it again",
            )


def _expected_shapes(node: ir.Node) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Index of an input that is one a channel → the shape that it must have."""
    data, weights = static_shape(input_at(node, 0)), static_shape(input_at(node, 1))
    if node.domain or data is None or weights is None or len(data) < 2:
        return
    if node.op_type == "Conv" and weights:
        yield 2, (weights[0],)
    elif node.op_type == "ConvTranspose" and len(weights) > 1:
        yield 2, (weights[1] * read_int(node, "group", 1),)
    elif node.op_type == "BatchNormalization":
        for index in (1, 2, 3, 4):
            yield index, (data[1],)
    elif node.op_type == "Gemm" and (made := static_shape(node.outputs[0])) is not None:
        yield 2, made


def _fits(node: ir.Node, found: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    if node.op_type != "Gemm":
        return found == expected
    try:
        return np.broadcast_shapes(found, expected) == expected
    except ValueError:
        return False
