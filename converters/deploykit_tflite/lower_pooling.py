"""Pooling windows and reductions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from deploykit.graph.node_fields import FormError, constant_ints, needed_ints, needed_value
from deploykit.graph.op_facts import ANYTHING, interval
from deploykit.graph.reading import read_int, read_ints
from deploykit.tensors import Array, QuantParams
from deploykit_tflite import layout
from deploykit_tflite.lower_convolution import Padding, choose_padding, pad_image
from deploykit_tflite.lowering_context import TABLE, LoweringContext, constant_params
from deploykit_tflite.tflite_graph import ACTIVATION_NONE, PADDING_SAME

if TYPE_CHECKING:
    import onnx_ir as ir


def _padding(node: ir.Node, context: LoweringContext) -> Padding:
    kernel = needed_ints(node, "kernel_shape")
    if len(kernel) != 2:
        raise FormError(f"{len(kernel)}-D pooling", "only 2-D pooling is supported")
    if read_int(node, "ceil_mode", 0) or set(read_ints(node, "dilations", (1, 1))) != {1}:
        raise FormError("pooling with ceil_mode or dilations", "it is not in canonical form")
    strides = read_ints(node, "strides", (1, 1))
    pads = read_ints(node, "pads", (0, 0, 0, 0))
    size, output = context.shape(node)[2:], context.output_shape(node)[2:]
    return choose_padding(size, output, kernel, strides, pads)


def _emit_pool(
    code: str,
    node: ir.Node,
    context: LoweringContext,
    source: int,
    target: int,
    rule: int,
    activation: int,
) -> None:
    kernel, strides = needed_ints(node, "kernel_shape"), read_ints(node, "strides", (1, 1))
    context.emit(
        code,
        (source,),
        (target,),
        "Pool2DOptions",
        padding=rule,
        strideH=strides[0],
        strideW=strides[1],
        filterHeight=kernel[0],
        filterWidth=kernel[1],
        fusedActivationFunction=activation,
    )


@TABLE.register("MaxPool")
def lower_max_pool(node: ir.Node, context: LoweringContext) -> None:
    """MAX_POOL_2D; a pad that is no SAME is filled with the lowest value.

    Behind a ReLU zero is as low as anything gets, and PAD, which delegates take, fills with zero.
    """
    if len([v for v in node.outputs if v.uses() or v.is_graph_output()]) > 1:
        raise FormError("the indices of its maxima are used", "use the values only")
    padding = _padding(node, context)
    source = context.input(node)
    params = context.graph.tensors[source].quantization
    if any(padding.explicit):
        zero_is_lowest = (
            _never_negative(node) if params is None else params.zero_point[0] == params.bounds[0]
        )
        if zero_is_lowest:
            source = pad_image(context, source, padding.explicit)
        else:
            source = _pad_with_lowest(context, source, padding.explicit)
    target = context.output(node, params=params)
    activation = context.activation(node)
    _emit_pool("MAX_POOL_2D", node, context, source, target, padding.rule, activation)


def _never_negative(node: ir.Node) -> bool:
    producer = needed_value(node, 0).producer()
    bounds = None if producer is None else interval(producer, lambda _: ANYTHING)
    return bounds is not None and bounds[0] >= 0.0


def _pad_with_lowest(context: LoweringContext, source: int, pads: tuple[int, ...]) -> int:
    top, left, bottom, right = pads
    tensor = context.graph.tensors[source]
    n, h, w, c = tensor.shape
    params = tensor.quantization
    lowest = (
        np.asarray(np.finfo(np.float32).min, np.float32)
        if params is None
        else np.asarray(params.bounds[0], params.dtype)
    )
    target = context.like(source, "padded", (n, h + top + bottom, w + left + right, c))
    rows = [(0, 0), (top, bottom), (left, right), (0, 0)]
    operands = (
        source,
        context.graph.add_integers("paddings", rows),
        context.graph.add_constant("lowest", lowest, params),
    )
    context.emit("PADV2", operands, (target,), "PadV2Options")
    return target


@TABLE.register("AveragePool")
def lower_average_pool(node: ir.Node, context: LoweringContext) -> None:
    """AVERAGE_POOL_2D, which leaves padding out of the mean.

    Where ONNX counts it, zeros are padded first. Where it does not and the pads are no SAME, the
    mean over the padded window is multiplied by window / (elements that are no padding).
    """
    padding = _padding(node, context)
    source = context.input(node)
    params = context.graph.tensors[source].quantization
    counts_pads = read_int(node, "count_include_pad", 0) == 1
    pads = read_ints(node, "pads", (0, 0, 0, 0))
    explicit = padding.explicit
    if counts_pads and padding.rule == PADDING_SAME:
        explicit = (pads[0], pads[1], *_after(node, context))
    rule = padding.rule if explicit == padding.explicit else 1 - PADDING_SAME
    source = pad_image(context, source, explicit)
    if counts_pads or not any(explicit):
        target = context.output(node, params=params)
        activation = context.activation(node)
        padded = any(explicit) and not context.integer
        _emit_mean(node, context, source, target, rule, activation, padded=padded)
        return
    target = context.output(node)
    tensor = context.graph.tensors[target]
    mean = context.new(f"{tensor.name}/padded_mean", tensor.shape, params)
    _emit_mean(node, context, source, mean, rule, ACTIVATION_NONE)
    share = _inverse_share(node, context)
    chosen = constant_params(share) if context.integer else None
    factor = context.graph.add_constant(
        "window_share", share if chosen is None else chosen.quantize(share), chosen
    )
    context.emit(
        "MUL",
        (mean, factor),
        (target,),
        "MulOptions",
        fusedActivationFunction=context.activation(node),
    )


def _emit_mean(
    node: ir.Node,
    context: LoweringContext,
    source: int,
    target: int,
    rule: int,
    activation: int,
    *,
    padded: bool = False,
) -> None:
    """AVERAGE_POOL_2D, or a DEPTHWISE_CONV_2D by 1 / window where that is faster.

    That is in int8 without SAME padding, for which delegates have no average pooling: all weights
    are 127 with the scale 1 / (127 * window), so that the sum is the same, rounded once. And in
    float behind a PAD, which delegates make part of a convolution and of no pooling.
    """
    if not padded and (not context.integer or rule == PADDING_SAME):
        _emit_pool("AVERAGE_POOL_2D", node, context, source, target, rule, activation)
        return
    kernel, strides = needed_ints(node, "kernel_shape"), read_ints(node, "strides", (1, 1))
    weights, bias = _mean_weights(context, source, kernel)
    context.emit(
        "DEPTHWISE_CONV_2D",
        (source, weights, bias),
        (target,),
        "DepthwiseConv2DOptions",
        padding=rule,
        strideH=strides[0],
        strideW=strides[1],
        dilationHFactor=1,
        dilationWFactor=1,
        depthMultiplier=1,
        fusedActivationFunction=activation,
    )


def _mean_weights(context: LoweringContext, source: int, kernel: Sequence[int]) -> tuple[int, int]:
    """Weights and bias of a depthwise convolution that takes the mean of its window."""
    tensor = context.graph.tensors[source]
    channels, shape = tensor.shape[3], (1, *kernel, tensor.shape[3])
    held = tensor.quantization
    if held is None:
        weights = np.full(shape, 1 / (kernel[0] * kernel[1]), np.float32)
        no_bias = np.zeros(channels, np.float32)
        return (
            context.graph.add_constant("window", weights),
            context.graph.add_constant("no_bias", no_bias),
        )
    step = 1 / (127 * kernel[0] * kernel[1])
    bias_scale = float(np.float32(held.scale[0]) * np.float32(step))
    zeros = (0,) * channels
    return (
        context.graph.add_constant(
            "window",
            np.full(shape, 127, np.int8),
            QuantParams((step,) * channels, zeros, "int8", 3),
        ),
        context.graph.add_constant(
            "no_bias",
            np.zeros(channels, np.int32),
            QuantParams((bias_scale,) * channels, zeros, "int32", 0),
        ),
    )


def _after(node: ir.Node, context: LoweringContext) -> tuple[int, int]:
    kernel, strides = needed_ints(node, "kernel_shape"), read_ints(node, "strides", (1, 1))
    pads = read_ints(node, "pads", (0, 0, 0, 0))
    size, output = context.shape(node)[2:], context.output_shape(node)[2:]
    bottom, right = (
        max((output[i] - 1) * strides[i] + kernel[i] - size[i] - pads[i], 0) for i in (0, 1)
    )
    return bottom, right


def _inverse_share(node: ir.Node, context: LoweringContext) -> Array:
    """Window elements over those that are no padding, for each output: shape (1, H, W, 1)."""
    kernel, strides = needed_ints(node, "kernel_shape"), read_ints(node, "strides", (1, 1))
    pads = read_ints(node, "pads", (0, 0, 0, 0))
    size, output = context.shape(node)[2:], context.output_shape(node)[2:]
    counts = []
    for i in (0, 1):
        first = np.arange(output[i]) * strides[i] - pads[i]
        counts.append(np.minimum(first + kernel[i], size[i]) - np.maximum(first, 0))
    share = kernel[0] * kernel[1] / np.outer(counts[0], counts[1])
    return share.astype(np.float32)[None, :, :, None]


#: Float kernels add up one number after the other. On a plane of one colour every addition is
#: rounded to the same side: the mean of n equal numbers is off by up to n * 1.5e-8 of itself
#: (measured: 4.7e-5 at 56 x 56). From here on it is a mean of the means of rows: 3e-8 * sqrt(n).
_LONG_MEAN = 1024


@TABLE.register_each(ReduceMean="MEAN", ReduceMax="REDUCE_MAX", ReduceSum="SUM")
def lower_reduction(node: ir.Node, context: LoweringContext, code: str) -> None:
    """MEAN, REDUCE_MAX or SUM over the axes where the file has them.

    The kernel sets do not agree on an int8 SUM; there it is a MEAN times the number of elements.
    """
    shape = context.shape(node)
    rank = len(shape)
    axes = constant_ints(node, 1) or tuple(range(rank))
    axes = tuple(axis % rank for axis in axes)
    keeps = read_int(node, "keepdims", 1) == 1
    left = [axis for axis in layout.held_order(rank) if axis not in axes]
    order = None if keeps else tuple(sorted(left).index(axis) for axis in left)
    source = context.input(node)
    same_scale: QuantParams | None = None
    if node.op_type == "ReduceMax":
        same_scale = context.graph.tensors[source].quantization
    target = context.output(node, order=order, params=same_scale)
    held = sorted(layout.held_axis(axis, rank) for axis in axes)
    if context.integer and node.op_type == "ReduceSum":
        _emit_integer_sum(context, source, target, held, keeps=keeps)
    elif _is_long_mean(context, node.op_type, source, held):
        _emit_mean_of_means(context, source, target, held, keeps=keeps)
    else:
        _emit_reduction(context, code, source, target, held, keeps=keeps)


def _emit_reduction(
    context: LoweringContext, code: str, source: int, target: int, axes: list[int], *, keeps: bool
) -> None:
    operand = context.graph.add_integers("axes", axes)
    context.emit(code, (source, operand), (target,), "ReducerOptions", keepDims=keeps)


def _is_long_mean(context: LoweringContext, op_type: str, source: int, axes: list[int]) -> bool:
    shape = context.graph.tensors[source].shape
    count = int(np.prod([shape[axis] for axis in axes]))
    longest = max(shape[axis] for axis in axes)
    return (
        op_type == "ReduceMean" and not context.integer and longest < count and count >= _LONG_MEAN
    )


def _emit_mean_of_means(
    context: LoweringContext, source: int, target: int, axes: list[int], *, keeps: bool
) -> None:
    graph = context.graph
    shape = tuple(
        1 if axis == axes[-1] else length for axis, length in enumerate(graph.tensors[source].shape)
    )
    rows = context.new(f"{graph.tensors[target].name}/rows", shape)
    _emit_reduction(context, "MEAN", source, rows, axes[-1:], keeps=True)
    _emit_reduction(context, "MEAN", rows, target, axes if not keeps else axes[:-1], keeps=keeps)


def _emit_integer_sum(
    context: LoweringContext, source: int, target: int, axes: list[int], *, keeps: bool
) -> None:
    tensor = context.graph.tensors[target]
    params = tensor.quantization
    assert params is not None
    count = int(np.prod([context.graph.tensors[source].shape[axis] for axis in axes]))
    # The mean has the very integers of the sum: the product only renames their scale.
    narrow = replace(params, scale=(params.scale[0] / count,))
    mean = context.new(f"{tensor.name}/mean", tensor.shape, narrow)
    _emit_reduction(context, "MEAN", source, mean, axes, keeps=keeps)
    number = np.asarray(count, np.float32)
    factor = constant_params(number)
    operand = context.graph.add_constant("count", factor.quantize(number), factor)
    context.emit(
        "MUL", (mean, operand), (target,), "MulOptions", fusedActivationFunction=ACTIVATION_NONE
    )
