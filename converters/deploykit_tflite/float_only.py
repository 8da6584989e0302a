"""Ops that the format computes in float only: among integers they stand between a DEQUANTIZE and
a QUANTIZE.
"""

from __future__ import annotations

from deploykit.graph.op_facts import op_types
from deploykit.graph.ops import BINARY_OPS, CLAMPS, UNARY_OPS

#: Their operators have integer kernels.
_INTEGER_UNARY = CLAMPS | {"LeakyRelu"} | {"Sigmoid"} | {"Tanh"}

#: Div and Pow, whose results an integer's step may ruin.
_FLOAT_BINARY = BINARY_OPS & op_types(lambda op: op.sensitive is not None)

FLOAT_ONLY_OPS = (UNARY_OPS - _INTEGER_UNARY) | _FLOAT_BINARY
