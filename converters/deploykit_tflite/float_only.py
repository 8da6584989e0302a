"""Ops that the format computes in float only: among integers they stand between a DEQUANTIZE and
a QUANTIZE.
"""

from __future__ import annotations

from deploykit.graph.ops import BINARY_OPS, CLAMPS, UNARY_OPS

#: Their operators have integer kernels.
_INTEGER_UNARY = CLAMPS | {"LeakyRelu"} | {"Sigmoid"} | {"Tanh"}

FLOAT_ONLY_OPS = (UNARY_OPS - _INTEGER_UNARY) | (BINARY_OPS & {"Div", "Pow"})
