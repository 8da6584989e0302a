"""Convolutions and matrix products."""

from __future__ import annotations

from deploykit.graph.op_facts.declaration import Channels, Kind, Op

LAYERS = (
    Op(
        "Conv",
        "2-D; explicit pads, strides, dilations, group, kernel_shape; W constant",
        "convolution",
        Kind.LAYER,
        Channels.ABSORBS,
        weights=1,
        bias=2,
        output_axis=0,  # (C_out, C_in / group, kH, kW)
        accumulates=True,
        stores_clamped=True,
    ),
    Op(
        "ConvTranspose",
        "2-D; explicit pads, strides, dilations, output_padding; W const",
        "transposed_convolution",
        Kind.LAYER,
        weights=1,
        bias=2,
        output_axis=1,  # (C_in, C_out / group, kH, kW)
        accumulates=True,
    ),
    Op(
        "Gemm",
        "Y = A W^T + B: alpha = beta = 1, transA = 0, transB = 1; W, B constant",
        "linear",
        Kind.LAYER,
        Channels.ABSORBS,
        weights=1,
        bias=2,
        output_axis=0,  # (C_out, C_in) with transB 1
        accumulates=True,
        stores_clamped=True,
    ),
    Op(
        "MatMul",
        "both operands computed, or a constant that is no plain linear layer",
        "matmul",
        Kind.LAYER,
        weights=1,
        accumulates=True,
    ),
)
