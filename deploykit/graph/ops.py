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
        cost: The formula of `deploykit.cost.formulas` that counts it, by name, and where it takes
            one the number of arithmetic operations an output element. One operation is one
            addition, multiplication, division, comparison, or one call of exp, tanh, sqrt, pow or
            erf in the op's definition: e.g. HardSwish, x * max(0, min(1, x / 6 + 1 / 2)), is 5.
        domain: Empty for ONNX's own, ``deploykit`` for a function of ours.
    """

    op_type: str
    spelling: str
    cost: str
    domain: str = ""


CANONICAL_OPS: tuple[CanonicalOp, ...] = (
    CanonicalOp(
        "Conv",
        "2-D; explicit pads, strides, dilations, group, kernel_shape; W constant",
        "convolution",
    ),
    CanonicalOp(
        "ConvTranspose",
        "2-D; explicit pads, strides, dilations, output_padding; W const",
        "transposed_convolution",
    ),
    CanonicalOp(
        "Gemm",
        "Y = A W^T + B: alpha = beta = 1, transA = 0, transB = 1; W, B constant",
        "linear",
    ),
    CanonicalOp(
        "MatMul",
        "both operands computed, or a constant that is no plain linear layer",
        "matmul",
    ),
    CanonicalOp("Add", "numpy broadcasting; a constant is the second operand", "elementwise 1"),
    CanonicalOp("Sub", "numpy broadcasting; subtraction of a constant is an Add", "elementwise 1"),
    CanonicalOp("Mul", "numpy broadcasting; a constant is the second operand", "elementwise 1"),
    CanonicalOp("Div", "numpy broadcasting; division by a constant is a Mul", "elementwise 1"),
    CanonicalOp("Max", "two operands, a constant second; max(x, 0) is a Relu", "elementwise 1"),
    CanonicalOp("Min", "two operands, a constant second", "elementwise 1"),
    CanonicalOp(
        "Pow",
        "constant exponent other than 1, 2 (a Mul) and 1/2 (a Sqrt)",
        "elementwise 1",
    ),
    CanonicalOp("Relu", "", "elementwise 1"),
    CanonicalOp("Clip", "both bounds constant scalars; ReLU6 is Clip(0, 6)", "elementwise 2"),
    CanonicalOp("LeakyRelu", "alpha explicit", "elementwise 2"),
    CanonicalOp("PRelu", "slope constant, one a channel: (C, 1, 1)", "elementwise 2"),
    CanonicalOp("Elu", "alpha explicit", "elementwise 3"),
    CanonicalOp("Sigmoid", "", "elementwise 4"),
    CanonicalOp("Tanh", "", "elementwise 1"),
    CanonicalOp(
        "HardSigmoid",
        "alpha, beta explicit; torch's is alpha = 1/6, beta = 1/2",
        "elementwise 4",
    ),
    CanonicalOp("HardSwish", "", "elementwise 5"),
    CanonicalOp("Gelu", "approximate explicit", "gelu"),
    CanonicalOp("Softmax", "axis explicit and not negative", "elementwise 5"),
    CanonicalOp("Exp", "", "elementwise 1"),
    CanonicalOp("Sqrt", "", "elementwise 1"),
    CanonicalOp("Abs", "", "elementwise 1"),
    CanonicalOp("Neg", "", "elementwise 1"),
    CanonicalOp(
        "MaxPool",
        "2-D; explicit pads, strides, kernel_shape; ceil_mode 0, dilations 1",
        "pool",
    ),
    CanonicalOp("AveragePool", "2-D; as MaxPool, count_include_pad explicit", "pool"),
    CanonicalOp(
        "ReduceMean",
        "axes a constant input, not negative, sorted; keepdims explicit",
        "reduction",
    ),
    CanonicalOp("ReduceMax", "as ReduceMean", "reduction"),
    CanonicalOp("ReduceSum", "as ReduceMean", "reduction"),
    CanonicalOp("Concat", "axis not negative", "move"),
    CanonicalOp("Split", "axis not negative; sizes a constant input", "move"),
    CanonicalOp(
        "Slice",
        "starts, ends, axes, steps constant, not negative, inside of the shape",
        "pick",
    ),
    CanonicalOp(
        "Reshape",
        "constant target shape without 0 and -1; also Flatten, (Un)Squeeze",
        "view",
    ),
    CanonicalOp("Transpose", "perm explicit", "move"),
    CanonicalOp("Pad", "constant mode; pads for every axis; value a constant scalar", "move"),
    CanonicalOp("Resize", "nearest or linear; sizes a constant input for every axis", "resize"),
    CanonicalOp("Gather", "constant indices, not negative", "pick"),
    CanonicalOp("Expand", "constant shape", "move"),
    CanonicalOp("Silu", "x * sigmoid(x)", "elementwise 5", DOMAIN),
    CanonicalOp("ChannelShuffle", "groups explicit; NCHW", "move", DOMAIN),
    CanonicalOp(
        "ConcatShuffleSplit",
        "two inputs, two outputs; groups explicit; NCHW",
        "move",
        DOMAIN,
    ),
)

#: In the quantized stage only.
QDQ_OPS = frozenset({"QuantizeLinear", "DequantizeLinear"})


def is_canonical(domain: str, op_type: str) -> bool:
    """Whether an op is in the canonical set."""
    return any(op.op_type == op_type and op.domain == domain for op in CANONICAL_OPS)
