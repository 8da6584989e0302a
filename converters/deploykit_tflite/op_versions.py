"""The smallest version of each operator that has the features used, and the runtime that has it.

From the format's public versioning rules. A file that asks for no more than it needs loads in the
oldest runtime that can run it. Versions are stated for the element types that this target writes:
float32, float16 (weights), int8, uint8 (input and output only), int32 (shapes and biases).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from deploykit_tflite.tflite_graph import TfliteOp, TfliteTensor

Operands = Sequence[TfliteTensor | None]
Rule = Callable[[TfliteOp, Operands, Operands], int]


def _is(tensor: TfliteTensor | None, dtype: str) -> bool:
    return tensor is not None and tensor.dtype == dtype


def _is_hybrid(inputs: Operands) -> bool:
    return _is(inputs[0], "float32") and _is(inputs[1], "int8")


def _is_per_channel(tensor: TfliteTensor | None) -> bool:
    return (
        tensor is not None and tensor.quantization is not None and (tensor.quantization.per_channel)
    )


def _rank(inputs: Operands) -> int:
    return max(len(t.shape) for t in inputs if t is not None)


def _broadcasts_above_rank_4(inputs: Operands) -> bool:
    shapes = {t.shape for t in inputs if t is not None}
    return len(shapes) > 1 and _rank(inputs) > 4


def _int8_is_version_2(_op: TfliteOp, inputs: Operands, _outputs: Operands) -> int:
    return 2 if _is(inputs[0], "int8") else 1


def _conv_2d(_op: TfliteOp, inputs: Operands, _outputs: Operands) -> int:
    data, weights = inputs[0], inputs[1]
    assert data is not None
    assert weights is not None
    if data.shape[3] != weights.shape[3]:
        return 6  # grouped
    if _is(data, "int8"):
        return 3
    if _is_hybrid(inputs):
        return 5 if _is_per_channel(weights) else 2
    return 1


def _depthwise_conv_2d(op: TfliteOp, inputs: Operands, _outputs: Operands) -> int:
    if _is_hybrid(inputs):
        return 6 if _is_per_channel(inputs[1]) else 4
    if _is(inputs[0], "int8"):
        return 3
    dilated = op.fields["dilationHFactor"] != 1 or op.fields["dilationWFactor"] != 1
    return 2 if dilated else 1


def _fully_connected(op: TfliteOp, inputs: Operands, _outputs: Operands) -> int:
    if _is_hybrid(inputs) and _is_per_channel(inputs[1]):
        return 12
    if len(inputs) == 2 or inputs[2] is None:
        return 6
    if op.fields.get("keepNumDims"):
        return 5
    if _is(inputs[0], "int8"):
        return 4
    return 3 if _is_hybrid(inputs) else 1


def _mul(_op: TfliteOp, inputs: Operands, outputs: Operands) -> int:
    if not _is(inputs[0], "int8"):
        return 1
    scales = [
        t.quantization.scale[0] if t is not None and t.quantization is not None else 1.0
        for t in (inputs[0], inputs[1], outputs[0])
    ]
    return 3 if scales[0] * scales[1] / scales[2] >= 1.0 else 2


def _sub(op: TfliteOp, inputs: Operands, outputs: Operands) -> int:
    if _broadcasts_above_rank_4(inputs):
        return 3
    return _int8_is_version_2(op, inputs, outputs)


def _div(_op: TfliteOp, inputs: Operands, _outputs: Operands) -> int:
    return 2 if _broadcasts_above_rank_4(inputs) else 1


def _transpose(op: TfliteOp, inputs: Operands, outputs: Operands) -> int:
    if _rank(inputs[:1]) > 5:
        return 6
    if _rank(inputs[:1]) > 4:
        return 4
    return _int8_is_version_2(op, inputs, outputs)


def _transpose_conv(_op: TfliteOp, inputs: Operands, _outputs: Operands) -> int:
    if len(inputs) == 4 and inputs[3] is not None:
        return 3
    return 2 if _is(inputs[1], "int8") else 1


def _split(_op: TfliteOp, inputs: Operands, _outputs: Operands) -> int:
    return 2 if _is(inputs[1], "int8") else 1


def _slice(op: TfliteOp, inputs: Operands, outputs: Operands) -> int:
    if _rank(inputs[:1]) > 4:
        return 5
    return _int8_is_version_2(op, inputs, outputs)


def _strided_slice(op: TfliteOp, inputs: Operands, outputs: Operands) -> int:
    if _rank(inputs[:1]) > 4:
        return 4
    return _int8_is_version_2(op, inputs, outputs)


def _pad(op: TfliteOp, inputs: Operands, outputs: Operands) -> int:
    if _rank(inputs[:1]) > 4:
        return 4
    return _int8_is_version_2(op, inputs, outputs)


def _resize_bilinear(op: TfliteOp, inputs: Operands, outputs: Operands) -> int:
    if op.fields["halfPixelCenters"]:
        return 3
    return _int8_is_version_2(op, inputs, outputs)


def _resize_nearest(op: TfliteOp, inputs: Operands, outputs: Operands) -> int:
    if op.fields["halfPixelCenters"] or op.fields["alignCorners"]:
        return 3
    return _int8_is_version_2(op, inputs, outputs)


def _dequantize(_op: TfliteOp, inputs: Operands, _outputs: Operands) -> int:
    if _is(inputs[0], "float16"):
        return 3
    if _is(inputs[0], "int8"):
        return 5 if _is_per_channel(inputs[0]) else 2
    return 1


def _broadcast_to(_op: TfliteOp, inputs: Operands, _outputs: Operands) -> int:
    return 3 if _is(inputs[0], "int8") else 2


def _always_1(_op: TfliteOp, _inputs: Operands, _outputs: Operands) -> int:
    return 1


_RULES: dict[str, Rule] = {
    "CONV_2D": _conv_2d,
    "DEPTHWISE_CONV_2D": _depthwise_conv_2d,
    "FULLY_CONNECTED": _fully_connected,
    "MUL": _mul,
    "SUB": _sub,
    "DIV": _div,
    "MAXIMUM": _sub,
    "MINIMUM": _sub,
    "TRANSPOSE": _transpose,
    "TRANSPOSE_CONV": _transpose_conv,
    "SPLIT": _split,
    "SLICE": _slice,
    "STRIDED_SLICE": _strided_slice,
    "PAD": _pad,
    "PADV2": _pad,
    "RESIZE_BILINEAR": _resize_bilinear,
    "RESIZE_NEAREST_NEIGHBOR": _resize_nearest,
    "DEQUANTIZE": _dequantize,
    "BROADCAST_TO": _broadcast_to,
    **dict.fromkeys(
        (
            *("ADD", "MAX_POOL_2D", "AVERAGE_POOL_2D", "TANH", "LOGISTIC", "CONCATENATION"),
            *("SOFTMAX", "MEAN", "SUM", "REDUCE_MAX", "MIRROR_PAD", "RELU", "RELU6", "ABS"),
            *("GATHER", "BATCH_MATMUL", "SPLIT_V", "EXP", "GELU"),
        ),
        _int8_is_version_2,
    ),
    **dict.fromkeys(
        (
            *("RESHAPE", "RELU_N1_TO_1", "HARD_SWISH", "LEAKY_RELU", "PRELU", "SQRT"),
            *("RSQRT", "NEG", "POW", "QUANTIZE"),
        ),
        _always_1,
    ),
}

#: (operator, version) → first runtime that has it.
_RUNTIMES: dict[tuple[str, int], str] = {
    ("ABS", 1): "1.13.0",
    ("ABS", 2): "2.4.0",
    ("ADD", 1): "1.5.0",
    ("ADD", 2): "1.14.0",
    ("AVERAGE_POOL_2D", 1): "1.5.0",
    ("AVERAGE_POOL_2D", 2): "1.14.0",
    ("BATCH_MATMUL", 1): "2.3.0",
    ("BATCH_MATMUL", 2): "2.3.0",
    ("BROADCAST_TO", 2): "2.5.0",
    ("BROADCAST_TO", 3): "2.5.0",
    ("CONCATENATION", 1): "1.5.0",
    ("CONCATENATION", 2): "1.14.0",
    ("CONV_2D", 1): "1.5.0",
    ("CONV_2D", 2): "1.14.0",
    ("CONV_2D", 3): "1.14.0",
    ("CONV_2D", 5): "2.4.0",
    ("CONV_2D", 6): "2.9.0",
    ("DEPTHWISE_CONV_2D", 1): "1.5.0",
    ("DEPTHWISE_CONV_2D", 2): "1.12.0",
    ("DEPTHWISE_CONV_2D", 3): "1.14.0",
    ("DEPTHWISE_CONV_2D", 4): "2.2.0",
    ("DEPTHWISE_CONV_2D", 6): "2.3.0",
    ("DEQUANTIZE", 1): "1.13.1",
    ("DEQUANTIZE", 2): "1.14.0",
    ("DEQUANTIZE", 3): "1.15.0",
    ("DEQUANTIZE", 5): "2.7.0",
    ("DIV", 1): "1.6.0",
    ("DIV", 2): "2.3.0",
    ("EXP", 1): "1.7.0",
    ("EXP", 2): "2.12.0",
    ("FULLY_CONNECTED", 1): "1.5.0",
    ("FULLY_CONNECTED", 3): "1.14.0",
    ("FULLY_CONNECTED", 4): "1.14.0",
    ("FULLY_CONNECTED", 5): "2.0.0",
    ("FULLY_CONNECTED", 6): "2.1.0",
    ("FULLY_CONNECTED", 12): "2.17.0",
    ("GATHER", 1): "1.6.0",
    ("GATHER", 2): "1.14.0",
    ("GELU", 1): "2.9.0",
    ("GELU", 2): "2.9.0",
    ("HARD_SWISH", 1): "1.15.0",
    ("LEAKY_RELU", 1): "1.13.1",
    ("LOGISTIC", 1): "1.14.0",
    ("LOGISTIC", 2): "1.14.0",
    ("MAXIMUM", 1): "1.14.0",
    ("MAXIMUM", 2): "1.14.0",
    ("MAXIMUM", 3): "2.3.0",
    ("MAX_POOL_2D", 1): "1.5.0",
    ("MAX_POOL_2D", 2): "1.14.0",
    ("MEAN", 1): "1.6.0",
    ("MEAN", 2): "1.14.0",
    ("MINIMUM", 1): "1.14.0",
    ("MINIMUM", 2): "1.14.0",
    ("MINIMUM", 3): "2.3.0",
    ("MIRROR_PAD", 1): "1.13.1",
    ("MIRROR_PAD", 2): "2.3.0",
    ("MUL", 1): "1.5.0",
    ("MUL", 2): "1.14.0",
    ("MUL", 3): "1.15.0",
    ("NEG", 1): "1.9.0",
    ("PAD", 1): "1.5.0",
    ("PAD", 2): "1.14.0",
    ("PAD", 4): "2.6.0",
    ("PADV2", 1): "1.9.0",
    ("PADV2", 2): "1.14.0",
    ("PADV2", 4): "2.6.0",
    ("POW", 1): "1.10.0",
    ("PRELU", 1): "1.8.0",
    ("QUANTIZE", 1): "1.14.0",
    ("REDUCE_MAX", 1): "1.11.0",
    ("REDUCE_MAX", 2): "1.14.0",
    ("RELU", 1): "1.5.0",
    ("RELU", 2): "2.1.0",
    ("RELU6", 1): "1.5.0",
    ("RELU6", 2): "1.14.0",
    ("RELU_N1_TO_1", 1): "1.5.0",
    ("RESHAPE", 1): "1.5.0",
    ("RESIZE_BILINEAR", 1): "1.7.0",
    ("RESIZE_BILINEAR", 2): "1.14.0",
    ("RESIZE_BILINEAR", 3): "2.2.0",
    ("RESIZE_NEAREST_NEIGHBOR", 1): "1.13.1",
    ("RESIZE_NEAREST_NEIGHBOR", 2): "1.14.0",
    ("RESIZE_NEAREST_NEIGHBOR", 3): "2.3.0",
    ("RSQRT", 1): "1.10.0",
    ("SLICE", 1): "1.14.0",
    ("SLICE", 2): "1.14.0",
    ("SLICE", 5): "2.5.0",
    ("SOFTMAX", 1): "1.5.0",
    ("SOFTMAX", 2): "1.14.0",
    ("SPLIT", 1): "1.5.0",
    ("SPLIT", 2): "1.14.0",
    ("SPLIT_V", 1): "1.13.1",
    ("SPLIT_V", 2): "2.3.0",
    ("SQRT", 1): "1.10.0",
    ("STRIDED_SLICE", 1): "1.6.0",
    ("STRIDED_SLICE", 2): "1.14.0",
    ("STRIDED_SLICE", 4): "2.2.0",
    ("SUB", 1): "1.6.0",
    ("SUB", 2): "1.14.0",
    ("SUB", 3): "2.3.0",
    ("SUM", 1): "1.10.0",
    ("SUM", 2): "1.15.0",
    ("TANH", 1): "1.14.0",
    ("TANH", 2): "1.14.0",
    ("TRANSPOSE", 1): "1.6.0",
    ("TRANSPOSE", 2): "1.14.0",
    ("TRANSPOSE", 4): "2.3.0",
    ("TRANSPOSE", 6): "2.12.0",
    ("TRANSPOSE_CONV", 1): "1.9.0",
    ("TRANSPOSE_CONV", 2): "2.2.0",
    ("TRANSPOSE_CONV", 3): "2.3.0",
}


def op_version(op: TfliteOp, tensors: Sequence[TfliteTensor]) -> int:
    """The smallest version of an operator that has what this one uses.

    Raises:
        KeyError: the operator has no rule: whoever writes a new one states its versions here.
    """
    inputs = [tensors[i] if i >= 0 else None for i in op.inputs]
    outputs = [tensors[i] for i in op.outputs]
    return _RULES[op.code](op, inputs, outputs)


def runtime_of(code: str, version: int) -> str | None:
    """The first runtime that has a version of an operator; None if this target never writes it."""
    return _RUNTIMES.get((code, version))


def newest_runtime(versions: Sequence[str]) -> str:
    """The latest of several runtime versions: what a file with all of them needs."""
    return max(versions, key=lambda text: tuple(int(part) for part in text.split(".")))
