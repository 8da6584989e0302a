"""Windows and whole maps: Pooling and Reduction."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from deploykit.graph.node_fields import FormError, constant_ints, needed_value, shape_of
from deploykit.graph.reading import read_int, read_ints
from deploykit_ncnn.blob_axes import blob_axis
from deploykit_ncnn.layer_graph import Param
from deploykit_ncnn.lowering_context import TABLE, LoweringContext

if TYPE_CHECKING:
    import onnx_ir as ir

_MAX, _AVERAGE = 0, 1
#: Pads are as given, and windows that do not fit are omitted.
_VALID = 1
_SUM, _MEAN, _LARGEST = 0, 3, 4
#: ``operation`` of Reduction → ``pooling_type`` of Pooling.
_POOLING = {_MEAN: _AVERAGE, _LARGEST: _MAX}


@TABLE.register("MaxPool", "AveragePool")
def lower_pool(node: ir.Node, context: LoweringContext) -> None:
    """Pooling with explicit pads."""
    if len([v for v in node.outputs if v.uses() or v.is_graph_output()]) > 1:
        raise FormError("the indices of a MaxPool are read", "ncnn's Pooling gives values only")
    if read_int(node, "ceil_mode", 0) or set(read_ints(node, "dilations", (1, 1))) != {1}:
        raise FormError("a pool with ceil_mode or dilations", "it is not in canonical form")
    kernel = read_ints(node, "kernel_shape", ())
    if len(context.shape(node)) != 3 or len(kernel) != 2:
        raise FormError(f"a pool over {len(kernel)} axes", "use 2-D pools")
    average = node.op_type == "AveragePool"
    counted = average and read_int(node, "count_include_pad", 0)
    params = pool_params(
        _AVERAGE if average else _MAX,
        kernel,
        read_ints(node, "strides", (1, 1)),
        read_ints(node, "pads", (0, 0, 0, 0)),
    )
    value = node.outputs[0]
    names = [value.name or "value"]
    params |= {6: 1} if counted else {}
    blobs = context.emit("Pooling", context.title(node), [context.read(node, 0)], names, params)
    context.bind(value, blobs[0])


@TABLE.register_each(ReduceSum=_SUM, ReduceMean=_MEAN, ReduceMax=_LARGEST)
def lower_reduction(node: ir.Node, context: LoweringContext, code: int) -> None:
    """Pooling over a whole map, which is the faster kernel; Reduction over any other axes."""
    shape, keep = context.shape(node), read_int(node, "keepdims", 1)
    rank = len(shape_of(needed_value(node, 0)))
    given = constant_ints(node, 1)
    axes = tuple(sorted(blob_axis(a, rank) for a in (given or range(rank))))
    context.output_shape(node)
    blob = context.read(node, 0)
    if code in _POOLING and len(shape) == 3 and axes == (1, 2):
        kind = _POOLING[code]
        whole: dict[int, Param] = {0: kind, 4: 1}
        as_map = keep and node.outputs[0] not in context.vectors
        params = pool_params(kind, shape[1:]) if as_map else whole
        context.result(node, "Pooling", [blob], params)
        return
    if axes == tuple(range(len(shape))) and not keep:
        raise FormError(f"the reduction of all {prod(shape)} elements to one number without axes")
    params = {0: code, 1: 0, 3: axes, 5: 1}
    params |= {4: 1} if keep else {}
    context.result(node, "Reduction", [blob], params)


def pool_params(
    kind: int,
    kernel: tuple[int, ...],
    strides: tuple[int, ...] = (1, 1),
    pads: tuple[int, ...] = (0, 0, 0, 0),
) -> dict[int, Param]:
    """Parameters of a Pooling; what is as ncnn's default is omitted.

    Args:
        kind: 0 for the maximum, 1 for the mean.
        kernel: (height, width).
        strides: Likewise.
        pads: (top, left, bottom, right).
    """
    top, left, bottom, right = pads
    params: dict[int, Param] = {0: kind, 5: _VALID}
    for number, (high, wide) in ((1, kernel), (2, strides)):
        params |= {number: wide} if number == 1 or wide != 1 else {}
        params |= {number + 10: high} if high != wide else {}
    params |= {3: left} if left else {}
    params |= {13: top} if top != left else {}
    params |= {14: right} if right != left else {}
    return params | ({15: bottom} if bottom != top else {})
