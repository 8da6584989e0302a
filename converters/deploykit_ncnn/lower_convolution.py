"""Convolutions: Convolution, ConvolutionDepthWise, Deconvolution and DeconvolutionDepthWise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from deploykit.graph.node_fields import (
    FormError,
    needed_constant,
    needed_value,
    refuse_open_window,
    shape_of,
)
from deploykit.graph.reading import input_at, read_int, read_ints
from deploykit.tensors import Array, FloatArray
from deploykit_ncnn.fp16_workaround import (
    FEATURE_MASK,
    NO_FP16_ARITHMETIC,
    meets_wrong_kernel,
)
from deploykit_ncnn.layer_graph import Param, Weight
from deploykit_ncnn.lowering_context import TABLE, LoweringContext
from deploykit_ncnn.plan_fusions import activation_params, fused_activation
from deploykit_ncnn.quantized_inputs import QuantizedLayer

if TYPE_CHECKING:
    import onnx_ir as ir

#: ``int8_scale_term``: a weight scale for each group or output channel, and one input scale.
GROUP_SCALES, CHANNEL_SCALES = 1, 2
#: Added where the layer hands on integers; an output scale follows then.
REQUANTIZED = 100

#: Output channels of a group come in packs of so many on some CPUs.
_PACK = 8


@TABLE.register("Conv")
def lower_conv(node: ir.Node, context: LoweringContext) -> None:
    """Convolution; ConvolutionDepthWise with groups."""
    layer = context.quantized.layers.get(node)
    bias = bias_of(node, 2)
    if node.outputs[0] in context.vectors:
        _emit_vector_product(node, context, layer, bias)
    elif layer is None:
        weights = [Weight(np.asarray(_weights(node), np.float32), tagged=True)]
        params = _conv_params(node, bias)
        if context.fp16_workaround and meets_wrong_kernel(node):
            params[FEATURE_MASK] = NO_FP16_ARITHMETIC
        _emit(node, context, params, [*weights, *_float_weights(bias)])
    elif reads_integers(node) or node in context.plan.requantized:
        _emit_int8(node, context, layer, bias)
    else:
        _emit_int8_groups(node, context, layer, bias)


@TABLE.register("ConvTranspose")
def lower_conv_transpose(node: ir.Node, context: LoweringContext) -> None:
    """Deconvolution; DeconvolutionDepthWise with groups."""
    weights, bias = _weights(node), bias_of(node, 2)
    groups = read_int(node, "group", 1)
    channels, rows = weights.shape[0], weights.shape[1]
    # From (I, O / groups, ...) to (groups, O / groups, I / groups, ...).
    grouped = weights.reshape(groups, channels // groups, rows, *weights.shape[2:]).swapaxes(1, 2)
    params = _window_params(node, weights.shape[2:]) | {0: groups * rows, 6: weights.size}
    params |= {7: groups} if groups > 1 else {}
    params |= {5: 1} if bias is not None else {}
    down, right = read_ints(node, "output_padding", (0, 0))
    params |= {18: right, 19: down} if down or right else {}
    kind = "Deconvolution" if groups == 1 else "DeconvolutionDepthWise"
    held = Weight(np.ascontiguousarray(grouped, np.float32), tagged=True)
    _emit(node, context, params, [held, *_float_weights(bias)], kind)


def reads_integers(node: ir.Node) -> bool:
    """Whether the layer of a Conv in integers is right whatever stands before and behind it.

    ncnn's x86 kernels (1.0.20261020) hand on garbage for a grouped convolution that is not
    depthwise, has a multiple of 8 output channels a group, and is not requantized.
    """
    groups = read_int(node, "group", 1)
    channels, made = shape_of(needed_value(node, 0))[1], shape_of(node.outputs[0])[1]
    return groups == 1 or groups == channels == made or made // groups % _PACK != 0


def bias_of(node: ir.Node, index: int) -> FloatArray | None:
    """The constant bias at an input; None if it is omitted."""
    if input_at(node, index) is None:
        return None
    return np.asarray(needed_constant(node, index, "bias"), np.float32).reshape(-1)


def ncnn_scales(scales: Array) -> FloatArray:
    """ncnn multiplies by its scales where ONNX divides."""
    return np.asarray(1.0 / np.asarray(scales, np.float64), np.float32)


def _weights(node: ir.Node) -> Array:
    weights = needed_constant(node, 1, "weights")
    if weights.ndim != 4:
        raise FormError(f"a convolution over {weights.ndim - 2} axes", "use 2-D convolutions")
    return weights


def _float_weights(bias: FloatArray | None) -> list[Weight]:
    return [] if bias is None else [Weight(bias)]


def _conv_params(node: ir.Node, bias: FloatArray | None) -> dict[int, Param]:
    made, read, *kernel = shape_of(needed_value(node, 1))
    params = _window_params(node, (kernel[0], kernel[1]))
    params |= {0: made, 6: made * read * kernel[0] * kernel[1]}
    groups = read_int(node, "group", 1)
    params |= {7: groups} if groups > 1 else {}
    return params | ({5: 1} if bias is not None else {})


def _window_params(node: ir.Node, kernel: tuple[int, ...]) -> dict[int, Param]:
    """Kernel, dilation, stride and pads; what is as ncnn's default is omitted."""
    refuse_open_window(node)
    top, left, bottom, right = read_ints(node, "pads", (0, 0, 0, 0))
    if min(top, left, bottom, right) < 0:
        raise FormError("negative pads", "use a Slice")
    params: dict[int, Param] = {}
    pairs = ((1, kernel), (2, read_ints(node, "dilations", (1, 1))))
    for number, (high, wide) in (*pairs, (3, read_ints(node, "strides", (1, 1)))):
        params |= {number: wide} if number == 1 or wide != 1 else {}
        params |= {number + 10: high} if high != wide else {}
    params |= {4: left} if left else {}
    params |= {14: top} if top != left else {}
    params |= {15: right} if right != left else {}
    return params | ({16: bottom} if bottom != top else {})


def _emit(
    node: ir.Node,
    context: LoweringContext,
    params: Mapping[int, Param],
    weights: list[Weight],
    kind: str = "",
) -> None:
    """The layer, with the activation that it computes along."""
    groups = read_int(node, "group", 1)
    kind = kind or ("Convolution" if groups == 1 else "ConvolutionDepthWise")
    blob = _source(node, context)
    context.result(node, kind, [blob], {**params, **activation_of(node, context)}, weights)


def activation_of(node: ir.Node, context: LoweringContext) -> dict[int, Param]:
    """Parameters of the activation that becomes part of a node's layer."""
    activation = context.plan.activations.get(node)
    return activation_params(None if activation is None else fused_activation(activation))


def _source(node: ir.Node, context: LoweringContext) -> str:
    layer = context.quantized.layers.get(node)
    return context.read(node, 0) if layer is None else context.read_value(layer.source)


def _emit_int8(
    node: ir.Node, context: LoweringContext, layer: QuantizedLayer, bias: FloatArray | None
) -> None:
    groups = read_int(node, "group", 1)
    scales = layer.channel_scales
    if groups > 1:
        rows = scales.reshape(groups, -1)
        if (rows != rows[:, :1]).any():
            raise FormError(
                f"{groups} groups whose output channels have weight scales of their own",
                "ncnn has one for each group: quantize with this target's own policy",
            )
        scales = rows[:, 0].copy()
    term = GROUP_SCALES if groups > 1 else CHANNEL_SCALES
    params = _conv_params(node, bias)
    params[8] = term
    weights = _int8_weights(layer, layer.weights, bias, scales)
    handed_on = context.plan.requantized.get(node)
    if handed_on is not None:
        params[8] = term + REQUANTIZED
        weights.append(Weight(ncnn_scales(np.asarray(handed_on.scale))))
    _emit(node, context, params, weights)


def _emit_vector_product(
    node: ir.Node, context: LoweringContext, layer: QuantizedLayer | None, bias: FloatArray | None
) -> None:
    """InnerProduct: see `deploykit_ncnn.plan_vectors`."""
    source = needed_value(node, 0) if layer is None else layer.source
    blob = context.read_value(source, as_vector=True)
    weights = _weights(node) if layer is None else layer.weights
    emit_product(node, context, blob, weights.reshape(len(weights), -1), bias)


def emit_product(
    node: ir.Node, context: LoweringContext, blob: str, weights: Array, bias: FloatArray | None
) -> None:
    """InnerProduct with the activation that it computes along.

    Args:
        node: What it is made of.
        context: Where it goes.
        blob: What it reads: a vector, or the rows of a matrix.
        weights: (outputs, inputs); the integers of a layer that computes in integers.
        bias: One number an output.
    """
    layer = context.quantized.layers.get(node)
    params: dict[int, Param] = {0: len(weights), 2: weights.size, **activation_of(node, context)}
    params |= {1: 1} if bias is not None else {}
    if layer is None:
        held = [Weight(np.ascontiguousarray(weights, np.float32), tagged=True)]
        context.result(node, "InnerProduct", [blob], params, [*held, *_float_weights(bias)])
        return
    params[8] = CHANNEL_SCALES
    arrays = _int8_weights(layer, weights, bias, layer.channel_scales)
    context.result(node, "InnerProduct", [blob], params, arrays)


def _int8_weights(
    layer: QuantizedLayer, weights: Array, bias: FloatArray | None, scales: Array
) -> list[Weight]:
    return [
        Weight(np.ascontiguousarray(weights), tagged=True),
        *_float_weights(bias),
        Weight(ncnn_scales(scales)),
        Weight(ncnn_scales(np.asarray(layer.data.scale))),
    ]


def _emit_int8_groups(
    node: ir.Node, context: LoweringContext, layer: QuantizedLayer, bias: FloatArray | None
) -> None:
    """One Convolution for each group, on slices: see `reads_integers`."""
    groups = read_int(node, "group", 1)
    rows, name = len(layer.weights) // groups, context.output_name(node)
    size = context.shape(node)[0] // groups
    stem = context.title(node)
    parts = context.emit(
        "Slice",
        f"{stem}.slice",
        [_source(node, context)],
        [f"{name}_slice{i}" for i in range(groups)],
        {0: (size,) * groups, 1: 0},
    )
    made: list[str] = []
    params = _conv_params(node, bias)
    del params[7]
    params |= {0: rows, 6: layer.weights.size // groups, 8: CHANNEL_SCALES}
    params |= activation_of(node, context)
    for i, part in enumerate(parts):
        of_group = slice(i * rows, (i + 1) * rows)
        own_bias = None if bias is None else bias[of_group]
        weights = _int8_weights(
            layer, layer.weights[of_group], own_bias, layer.channel_scales[of_group]
        )
        made += context.emit(
            "Convolution", f"{stem}.group{i}", [part], [f"{name}_group{i}"], params, weights
        )
    context.result(node, "Concat", made, {0: 0})
