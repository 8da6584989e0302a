"""What one node costs: the formulas that the table of canonical ops names.

Conventions, the same for every op:

- ``mult_adds``: multiplications paired with an addition, of convolutions and matrix products
  alone; what the papers of compact networks print as "mult-adds", "multiply-adds" or, in
  ShuffleNet's, "FLOPs". Taps that fall on padding count; a bias does not.
- ``flops``: every arithmetic operation: 2 a mult-add, 1 an added bias element, and for all other
  ops the operations of their definition (`deploykit.graph.op_facts.Op.cost`).
- Elements read and written: all of every input and output, once, as in the memory-access cost of
  Ma et al. 2018 (ShuffleNet V2); a cache larger than that is not assumed, nor is a smaller one.

Formulas (n batch, c channels, h and w of the output, k kernel, g groups; ONNX's definitions):

    convolution             mult_adds = n h w c_out (c_in / g) k_h k_w (Howard et al. 2017, 3.1)
    transposed_convolution  mult_adds = n h_in w_in c_in (c_out / g) k_h k_w
    linear, matmul          mult_adds = (elements of the output) * (length of the inner axis)
    elementwise N           flops = N * (elements of the output)
    gelu                    elementwise 5, or 9 with the approximation by tanh (Hendrycks 2016)
    pool                    flops = (elements of the output) * k_h k_w; one less a window for max
    reduction               flops = elements of the input; less those of the output for max, sum
    resize                  nearest: none; linear over d axes: 2^d - 1 interpolations of 3 flops
    move                    no arithmetic: reads all, writes all
    pick                    as move, but reads only what it writes
    view                    no arithmetic and no byte: the same bytes under another shape
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploykit.graph.op_facts import facts_of
from deploykit.graph.reading import (
    input_at,
    is_constant,
    is_op,
    known_shape,
    only_reader,
    read_int,
    read_ints,
    read_string,
    uniform_constant,
)

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class NodeCount:
    """What one node computes and touches.

    Attributes:
        mult_adds: See the module's docstring.
        flops: See the module's docstring.
        reads_outputs_only: Of its data inputs it reads as many elements as it writes (``pick``).
        is_view: It touches no element.
    """

    mult_adds: int = 0
    flops: int = 0
    reads_outputs_only: bool = False
    is_view: bool = False


Formula = Callable[["ir.Node", int], NodeCount]


def count_node(node: ir.Node) -> NodeCount | None:
    """What a node costs; None for an op that is not declared, which has no known cost.

    Args:
        node: Of a graph with static shapes.

    Raises:
        KeyError: the declaration names a formula that does not exist (a bug of it).
    """
    op = facts_of(node)
    if op is None or not op.cost:
        return None
    formula, _, operations = op.cost.partition(" ")
    return FORMULAS[formula](node, int(operations or 0))


def elements(value: ir.Value | None) -> int:
    """Number of elements of a value with a static shape; 0 for an input that is omitted."""
    return 0 if value is None else math.prod(known_shape(value))


def _written(node: ir.Node) -> int:
    return sum(elements(value) for value in node.outputs)


def _count_convolution(node: ir.Node, _: int) -> NodeCount:
    weight = known_shape(node.inputs[1])  # (c_out, c_in / g, k_h, k_w)
    mult_adds = _written(node) * math.prod(weight[1:])
    return NodeCount(mult_adds, 2 * mult_adds + _bias_adds(node))


def _count_transposed_convolution(node: ir.Node, _: int) -> NodeCount:
    weight = known_shape(node.inputs[1])  # (c_in, c_out / g, k_h, k_w)
    mult_adds = elements(node.inputs[0]) * math.prod(weight[1:])
    return NodeCount(mult_adds, 2 * mult_adds + _bias_adds(node))


def _bias_adds(node: ir.Node) -> int:
    return _written(node) if input_at(node, 2) is not None and not has_empty_bias(node) else 0


def has_empty_bias(node: ir.Node) -> bool:
    """Whether a convolution's bias is only there because an exporter needed one.

    torch's exporter gives a convolution before a BatchNormalization a bias of zeros that the
    network does not have.
    """
    reader = only_reader(node.outputs[0])
    return (
        is_op(node, "Conv", "ConvTranspose")
        and is_op(reader, "BatchNormalization")
        and uniform_constant(input_at(node, 2)) == 0.0
    )


def _count_linear(node: ir.Node, _: int) -> NodeCount:
    first = known_shape(node.inputs[0])
    inner = first[-2] if read_int(node, "transA", 0) else first[-1]
    mult_adds = _written(node) * inner
    return NodeCount(mult_adds, 2 * mult_adds + _bias_adds(node))


def _count_matmul(node: ir.Node, _: int) -> NodeCount:
    mult_adds = _written(node) * known_shape(node.inputs[0])[-1]
    return NodeCount(mult_adds, 2 * mult_adds)


def _count_elementwise(node: ir.Node, operations: int) -> NodeCount:
    return NodeCount(flops=operations * elements(node.outputs[0]))


def _count_gelu(node: ir.Node, _: int) -> NodeCount:
    by_tanh = read_string(node, "approximate", "none") == "tanh"
    return _count_elementwise(node, 9 if by_tanh else 5)


def _count_pool(node: ir.Node, _: int) -> NodeCount:
    window = math.prod(read_ints(node, "kernel_shape", ()))
    operations = window - 1 if node.op_type == "MaxPool" else window
    return NodeCount(flops=elements(node.outputs[0]) * operations)


def _count_reduction(node: ir.Node, _: int) -> NodeCount:
    read, written = elements(node.inputs[0]), elements(node.outputs[0])
    return NodeCount(flops=read if node.op_type == "ReduceMean" else read - written)


def _count_resize(node: ir.Node, _: int) -> NodeCount:
    if read_string(node, "mode", "nearest") == "nearest":
        return NodeCount()
    before, after = known_shape(node.inputs[0]), known_shape(node.outputs[0])
    axes = sum(a != b for a, b in zip(before, after, strict=True))
    return NodeCount(flops=3 * (2**axes - 1) * elements(node.outputs[0]))


def _count_move(_: ir.Node, __: int) -> NodeCount:
    return NodeCount()


def _count_pick(_: ir.Node, __: int) -> NodeCount:
    return NodeCount(reads_outputs_only=True)


def _count_view(_: ir.Node, __: int) -> NodeCount:
    return NodeCount(is_view=True)


FORMULAS: dict[str, Formula] = {
    "convolution": _count_convolution,
    "transposed_convolution": _count_transposed_convolution,
    "linear": _count_linear,
    "matmul": _count_matmul,
    "elementwise": _count_elementwise,
    "gelu": _count_gelu,
    "pool": _count_pool,
    "reduction": _count_reduction,
    "resize": _count_resize,
    "move": _count_move,
    "pick": _count_pick,
    "view": _count_view,
}


def data_inputs(node: ir.Node) -> list[ir.Value]:
    """The inputs that are computed: activations."""
    return [value for value in node.inputs if value is not None and not is_constant(value)]


def weight_inputs(node: ir.Node) -> list[ir.Value]:
    """The inputs that are constant numbers, not shapes, axes or indices."""
    return [
        value
        for value in node.inputs
        if value is not None
        and is_constant(value)
        and value.dtype is not None
        and value.dtype.is_floating_point()
    ]


def parameters_of(node: ir.Node) -> list[ir.Value]:
    """The constants that were trained: those with more than one element.

    A scalar is part of an op (a bound, an exponent, the 1/6 of a hard-sigmoid). The mean and
    variance of a BatchNormalization are statistics, which torch calls buffers.
    """
    found = [value for value in weight_inputs(node) if elements(value) > 1]
    if node.op_type == "BatchNormalization" and not node.domain:
        statistics = {value.name for value in node.inputs[3:5] if value is not None}
        return [value for value in found if value.name not in statistics]
    if has_empty_bias(node):
        return found[:1]
    return found
