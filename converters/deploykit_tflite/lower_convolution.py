"""Conv and ConvTranspose.

A convolution becomes CONV_2D, or DEPTHWISE_CONV_2D where every group has one input channel. ONNX
gives pads as numbers, TFLite knows two rules (Dumoulin and Visin, "A guide to convolution
arithmetic", 2016, for the shapes):

    VALID   no padding
    SAME    output = ceil(input / stride), total = (output - 1) * stride + extent - input,
            half of it before, rounded down

Where the numbers follow neither rule (a symmetric 1 at stride 2 does not), an explicit PAD of
exactly the rows and columns that are read stands before the convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploykit.graph.node_fields import FormError, needed_value, refuse_open_window, shape_of
from deploykit.graph.reading import input_at, is_constant, read_int, read_ints
from deploykit_tflite import layout
from deploykit_tflite.lowering_context import TABLE, LoweringContext
from deploykit_tflite.store_weights import Hybrid, add_bias, add_weights
from deploykit_tflite.tflite_graph import ACTIVATION_NONE, PADDING_SAME, PADDING_VALID

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class Padding:
    """How a window's padding is written.

    Attributes:
        rule: `PADDING_SAME` or `PADDING_VALID`.
        explicit: (top, left, bottom, right) of a PAD that must stand before; all 0 for none.
    """

    rule: int
    explicit: tuple[int, int, int, int] = (0, 0, 0, 0)


def choose_padding(
    size: Sequence[int],
    output: Sequence[int],
    extent: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
) -> Padding:
    """SAME or VALID where they do what the numbers say, otherwise VALID behind a PAD.

    Args:
        size: Input height and width.
        output: Output height and width.
        extent: Height and width that a window covers, dilation included.
        strides: Vertical and horizontal.
        pads: ONNX's (top, left, bottom, right).
    """
    # Rows that no window reaches need no padding: what counts is how far the last one reaches.
    reach = [(output[i] - 1) * strides[i] + extent[i] for i in (0, 1)]
    after = [max(reach[i] - size[i] - pads[i], 0) for i in (0, 1)]
    needed = (pads[0], pads[1], after[0], after[1])
    if not any(needed):
        return Padding(PADDING_VALID)
    same = all(
        output[i] == -(-size[i] // strides[i])
        and pads[i] == max(reach[i] - size[i], 0) // 2
        and pads[i] + size[i] + after[i] >= reach[i]
        for i in (0, 1)
    )
    return Padding(PADDING_SAME) if same else Padding(PADDING_VALID, needed)


def pad_image(context: LoweringContext, source: int, pads: Sequence[int]) -> int:
    """PAD a tensor held NHWC with zeros (in int8: its zero point); itself if there is no pad."""
    top, left, bottom, right = pads
    if not any(pads):
        return source
    n, h, w, c = context.graph.tensors[source].shape
    target = context.like(source, "padded", (n, h + top + bottom, w + left + right, c))
    rows = [(0, 0), (top, bottom), (left, right), (0, 0)]
    operand = context.graph.add_integers("paddings", rows)
    context.emit("PAD", (source, operand), (target,), "PadOptions")
    return target


@dataclass(frozen=True)
class _Window:
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    extent: tuple[int, int]


def _weight_shape(value: ir.Value) -> tuple[int, ...]:
    if not is_constant(value):
        raise FormError(f"its weights '{value.name}' are computed", "weights must be constants")
    return shape_of(value)


def _window(node: ir.Node, weight_shape: Sequence[int]) -> _Window:
    if len(weight_shape) != 4:
        raise FormError(
            f"a {len(weight_shape) - 2}-D convolution", "only 2-D convolutions are supported"
        )
    refuse_open_window(node)
    dilations = read_ints(node, "dilations", (1, 1))
    height, width = (dilations[i] * (weight_shape[2 + i] - 1) + 1 for i in (0, 1))
    return _Window(
        read_ints(node, "strides", (1, 1)),
        dilations,
        read_ints(node, "pads", (0, 0, 0, 0)),
        (height, width),
    )


@TABLE.register("Conv")
def lower_conv(node: ir.Node, context: LoweringContext) -> None:
    """CONV_2D or DEPTHWISE_CONV_2D, activation fused."""
    weights_value = needed_value(node, 1)
    weights = _weight_shape(weights_value)
    window = _window(node, weights)
    (_, channels, *size), (_, _, *output) = context.shape(node), context.output_shape(node)
    padding = choose_padding(size, output, window.extent, window.strides, window.pads)
    source = pad_image(context, context.input(node), padding.explicit)
    group = read_int(node, "group", 1)
    fields = {
        "padding": padding.rule,
        "strideH": window.strides[0],
        "strideW": window.strides[1],
        "dilationHFactor": window.dilations[0],
        "dilationWFactor": window.dilations[1],
        "fusedActivationFunction": context.activation(node),
    }
    bias = add_bias(context, node, input_at(node, 2), weights[0])
    if group == channels and group > 1:
        # Delegates have no hybrid depthwise kernel, and its weights are few: they stay float.
        kernel = add_weights(
            context, weights_value, layout.HWC1_FROM_OIHW, channel_axis=3, hybrid=Hybrid.NONE
        )
        context.emit(
            "DEPTHWISE_CONV_2D",
            (source, kernel, bias),
            (context.output(node),),
            "DepthwiseConv2DOptions",
            depthMultiplier=weights[0] // channels,
            **fields,
        )
        return
    kernel = add_weights(
        context, weights_value, layout.OHWI_FROM_OIHW, channel_axis=0, hybrid=Hybrid.PER_CHANNEL
    )
    context.emit(
        "CONV_2D", (source, kernel, bias), (context.output(node),), "Conv2DOptions", **fields
    )


@TABLE.register("ConvTranspose")
def lower_conv_transpose(node: ir.Node, context: LoweringContext) -> None:
    """TRANSPOSE_CONV of the uncropped output, then exactly the rows that ONNX's pads leave.

    Where the pads follow the SAME rule of the transposed convolution nothing is cropped.
    """
    weights_value = needed_value(node, 1)
    if read_int(node, "group", 1) != 1:
        raise FormError(
            f"a transposed convolution in {read_int(node, 'group', 1)} groups",
            "use group 1, or a resize and a convolution",
        )
    window = _window(node, _weight_shape(weights_value))
    if window.dilations != (1, 1):
        raise FormError("a dilated transposed convolution", "use dilation 1")
    (_, _, *size), (n, channels, *output) = context.shape(node), context.output_shape(node)
    full = [(size[i] - 1) * window.strides[i] + window.extent[i] for i in (0, 1)]
    after = [full[i] - window.pads[i] - output[i] for i in (0, 1)]  # below 0: output_padding
    same = all(
        output[i] == size[i] * window.strides[i] and window.pads[i] == (full[i] - output[i]) // 2
        for i in (0, 1)
    )
    whole = all(after[i] <= 0 for i in (0, 1)) and window.pads[:2] == (0, 0)
    kernel = add_weights(
        context, weights_value, layout.OHWI_FROM_IOHW, channel_axis=0, hybrid=Hybrid.NONE
    )
    bias = add_bias(context, node, input_at(node, 2), channels)
    target = context.output(node, clamps=False)
    if not (same and any(window.pads)) and not whole:
        written = [max(full[i], window.pads[i] + output[i]) for i in (0, 1)]
        wide = context.like(target, "uncropped", (n, *written, channels))
        begin = context.graph.add_integers("begin", (0, *window.pads[:2], 0))
        length = context.graph.add_integers("size", (n, *output, channels))
        _emit_transpose_conv(context, node, (kernel, bias), wide, window, PADDING_VALID)
        context.emit("SLICE", (wide, begin, length), (target,), "SliceOptions")
        return
    rule = PADDING_VALID if whole else PADDING_SAME
    _emit_transpose_conv(context, node, (kernel, bias), target, window, rule)


def _emit_transpose_conv(
    context: LoweringContext,
    node: ir.Node,
    constants: tuple[int, int],
    target: int,
    window: _Window,
    rule: int,
) -> None:
    shape = context.graph.add_integers("output_shape", context.graph.tensors[target].shape)
    context.emit(
        "TRANSPOSE_CONV",
        (shape, constants[0], context.input(node), constants[1]),
        (target,),
        "TransposeConvOptions",
        padding=rule,
        strideH=window.strides[0],
        strideW=window.strides[1],
        fusedActivationFunction=ACTIVATION_NONE,
    )
