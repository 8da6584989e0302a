"""Conv and ConvTranspose: ``conv`` and ``conv_transpose`` with explicit pads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from deploykit.graph.node_fields import FormError, refuse_open_window
from deploykit.graph.reading import constant_array, input_at, read_int, read_ints
from deploykit_coreml.lowering_context import TABLE, LoweringContext
from deploykit_coreml.store_weights import weights_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from deploykit.tensors import Array


def window_pads(pads: tuple[int, ...]) -> list[int]:
    """ONNX's (top, left, bottom, right) as MIL's [top, bottom, left, right]."""
    half = len(pads) // 2
    return [pads[side * half + axis] for axis in range(half) for side in (0, 1)]


def bias_of(node: ir.Node, context: LoweringContext, index: int = 2) -> Array | None:
    """The bias in the program's type; None if there is none.

    Raises:
        FormError: the bias is computed.
    """
    value = input_at(node, index)
    if value is None:
        return None
    array = constant_array(value)
    if array is None:
        raise FormError("its bias is computed", "the bias must be a constant")
    return context.constant(array.reshape(-1), value.name or "bias")


def _check_two_dimensions(node: ir.Node, context: LoweringContext) -> None:
    rank = len(context.shape(node))
    if rank != 4:
        raise FormError(f"{rank - 2}-D convolution", "only 2-D convolutions are supported")
    refuse_open_window(node)


@TABLE.register("Conv")
def lower_conv(node: ir.Node, context: LoweringContext) -> None:
    """conv."""
    _check_two_dimensions(node, context)
    arguments: dict[str, Any] = {}
    bias = bias_of(node, context)
    if bias is not None:
        arguments["bias"] = bias
    context.result(
        node,
        "conv",
        x=context.read(node, 0),
        weight=weights_of(node, context, 0),
        strides=list(read_ints(node, "strides", (1, 1))),
        pad_type="custom",
        pad=window_pads(read_ints(node, "pads", (0, 0, 0, 0))),
        dilations=list(read_ints(node, "dilations", (1, 1))),
        groups=read_int(node, "group", 1),
        **arguments,
    )


@TABLE.register("ConvTranspose")
def lower_conv_transpose(node: ir.Node, context: LoweringContext) -> None:
    """conv_transpose; rows of ``output_padding`` are rows of pads that are not cut off.

    Where there are more of them than pads, no input reaches the last ones: zeros are padded and
    the bias is added behind.
    """
    _check_two_dimensions(node, context)
    top, left, bottom, right = read_ints(node, "pads", (0, 0, 0, 0))
    extra = read_ints(node, "output_padding", (0, 0))
    below = (bottom - extra[0], right - extra[1])
    beyond = [max(-b, 0) for b in below]
    shape = context.output_shape(node)
    arguments: dict[str, Any] = {}
    bias = bias_of(node, context)
    if bias is not None and not any(beyond):
        arguments["bias"] = bias
    name = context.output_name(node)
    variable = context.emit(
        "conv_transpose",
        f"{name}_reached" if any(beyond) else name,
        x=context.read(node, 0),
        weight=weights_of(node, context, 1),
        strides=list(read_ints(node, "strides", (1, 1))),
        pad_type="custom",
        pad=[top, max(below[0], 0), left, max(below[1], 0)],
        dilations=list(read_ints(node, "dilations", (1, 1))),
        groups=read_int(node, "group", 1),
        output_shape=[*shape[:2], shape[2] - beyond[0], shape[3] - beyond[1]],
        **arguments,
    )
    if any(beyond):
        variable = context.emit(
            "pad",
            name if bias is None else f"{name}_padded",
            x=variable,
            pad=[0, 0, 0, 0, 0, beyond[0], 0, beyond[1]],
            mode="constant",
            constant_val=context.scalar(0.0),
        )
        if bias is not None:
            variable = context.emit("add", name, x=variable, y=np.reshape(bias, (1, -1, 1, 1)))
    context.bind(node, variable)
