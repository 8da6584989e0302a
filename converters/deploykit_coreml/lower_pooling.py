"""Pooling and reductions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deploykit.graph.node_fields import FormError, constant_ints
from deploykit.graph.reading import read_int, read_ints
from deploykit_coreml.lower_convolution import window_pads
from deploykit_coreml.lowering_context import TABLE, LoweringContext

if TYPE_CHECKING:
    import onnx_ir as ir


def _window(node: ir.Node) -> dict[str, Any]:
    kernel = read_ints(node, "kernel_shape", ())
    if len(kernel) != 2:
        raise FormError(f"{len(kernel)}-D pooling", "only 2-D pooling is supported")
    if read_int(node, "ceil_mode", 0) or set(read_ints(node, "dilations", (1, 1))) != {1}:
        raise FormError("pooling with ceil_mode or dilations", "it is not in canonical form")
    return {
        "kernel_sizes": list(kernel),
        "strides": list(read_ints(node, "strides", (1, 1))),
        "pad_type": "custom",
        "pad": window_pads(read_ints(node, "pads", (0, 0, 0, 0))),
        "ceil_mode": False,
    }


@TABLE.register("MaxPool")
def lower_max_pool(node: ir.Node, context: LoweringContext) -> None:
    """max_pool."""
    if len([v for v in node.outputs if v.uses() or v.is_graph_output()]) > 1:
        raise FormError("the indices of its maxima are used", "use the values only")
    context.result(node, "max_pool", x=context.read(node, 0), **_window(node))


@TABLE.register("AveragePool")
def lower_average_pool(node: ir.Node, context: LoweringContext) -> None:
    """avg_pool."""
    context.result(
        node,
        "avg_pool",
        x=context.read(node, 0),
        exclude_padding_from_average=read_int(node, "count_include_pad", 0) == 0,
        **_window(node),
    )


@TABLE.register_each(ReduceMean="reduce_mean", ReduceMax="reduce_max", ReduceSum="reduce_sum")
def lower_reduction(node: ir.Node, context: LoweringContext, code: str) -> None:
    """reduce_mean, reduce_max or reduce_sum."""
    rank = len(context.shape(node))
    axes = [axis % rank for axis in constant_ints(node, 1) or range(rank)]
    keeps = read_int(node, "keepdims", 1) == 1
    if not keeps and len(axes) == rank:
        raise FormError("a reduction to a single number", "keep one axis: keepdims=True")
    context.result(node, code, x=context.read(node, 0), axes=axes, keep_dims=keeps)
