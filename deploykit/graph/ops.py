"""The canonical set: the only ops that a target ever sees, each with its one spelling.

`canonicalize` and the fusing passes bring every source to this set; targets lower this set only,
and `docs/ops.md` is generated from it. All shapes are static, all constants are initializers, the
default-domain opset is `OPSET`.
"""

from __future__ import annotations

from dataclasses import dataclass

OPSET = 20
DOMAIN = "deploykit"


@dataclass(frozen=True)
class CanonicalOp:
    """One op of the canonical set.

    Attributes:
        op_type: Its ONNX op type.
        spelling: The one form in which it appears.
        domain: Empty for ONNX's own, ``deploykit`` for a function of ours.
    """

    op_type: str
    spelling: str
    domain: str = ""


CANONICAL_OPS: tuple[CanonicalOp, ...] = (
    CanonicalOp("Conv", "2-D; explicit pads, strides, dilations, group, kernel_shape; W constant"),
    CanonicalOp("ConvTranspose", "2-D; explicit pads, strides, dilations, output_padding; W const"),
    CanonicalOp("Gemm", "Y = A W^T + B: alpha = beta = 1, transA = 0, transB = 1; W, B constant"),
    CanonicalOp("MatMul", "both operands computed, or a constant that is no plain linear layer"),
    CanonicalOp("Add", "numpy broadcasting; a constant is the second operand"),
    CanonicalOp("Sub", "numpy broadcasting; subtraction of a constant is an Add"),
    CanonicalOp("Mul", "numpy broadcasting; a constant is the second operand"),
    CanonicalOp("Div", "numpy broadcasting; division by a constant is a Mul"),
    CanonicalOp("Max", "two operands, a constant second; max(x, 0) is a Relu"),
    CanonicalOp("Min", "two operands, a constant second"),
    CanonicalOp("Pow", "constant exponent other than 1, 2 (a Mul) and 1/2 (a Sqrt)"),
    CanonicalOp("Relu", ""),
    CanonicalOp("Clip", "both bounds constant scalars; ReLU6 is Clip(0, 6)"),
    CanonicalOp("LeakyRelu", "alpha explicit"),
    CanonicalOp("PRelu", "slope constant, one a channel: (C, 1, 1)"),
    CanonicalOp("Elu", "alpha explicit"),
    CanonicalOp("Sigmoid", ""),
    CanonicalOp("Tanh", ""),
    CanonicalOp("HardSigmoid", "alpha, beta explicit; torch's is alpha = 1/6, beta = 1/2"),
    CanonicalOp("HardSwish", ""),
    CanonicalOp("Gelu", "approximate explicit"),
    CanonicalOp("Softmax", "axis explicit and not negative"),
    CanonicalOp("Exp", ""),
    CanonicalOp("Sqrt", ""),
    CanonicalOp("Abs", ""),
    CanonicalOp("Neg", ""),
    CanonicalOp("MaxPool", "2-D; explicit pads, strides, kernel_shape; ceil_mode 0, dilations 1"),
    CanonicalOp("AveragePool", "2-D; as MaxPool, count_include_pad explicit"),
    CanonicalOp("ReduceMean", "axes a constant input, not negative, sorted; keepdims explicit"),
    CanonicalOp("ReduceMax", "as ReduceMean"),
    CanonicalOp("ReduceSum", "as ReduceMean"),
    CanonicalOp("Concat", "axis not negative"),
    CanonicalOp("Split", "axis not negative; sizes a constant input"),
    CanonicalOp("Slice", "starts, ends, axes, steps constant, not negative, inside of the shape"),
    CanonicalOp("Reshape", "constant target shape without 0 and -1; also Flatten, (Un)Squeeze"),
    CanonicalOp("Transpose", "perm explicit"),
    CanonicalOp("Pad", "constant mode; pads for every axis; value a constant scalar"),
    CanonicalOp("Resize", "nearest or linear; sizes a constant input for every axis"),
    CanonicalOp("Gather", "constant indices, not negative"),
    CanonicalOp("Expand", "constant shape"),
    CanonicalOp("Silu", "x * sigmoid(x)", DOMAIN),
    CanonicalOp("ChannelShuffle", "groups explicit; NCHW", DOMAIN),
    CanonicalOp("ConcatShuffleSplit", "two inputs, two outputs; groups explicit; NCHW", DOMAIN),
)

#: In the quantized stage only.
QDQ_OPS = frozenset({"QuantizeLinear", "DequantizeLinear"})


def is_canonical(domain: str, op_type: str) -> bool:
    """Whether an op is in the canonical set."""
    return any(op.op_type == op_type and op.domain == domain for op in CANONICAL_OPS)
