"""Operator versions by the format's public rules."""

from __future__ import annotations

import pytest

from deploykit.tensors import QuantParams
from deploykit_tflite.op_versions import _RULES, _RUNTIMES, newest_runtime, op_version, runtime_of
from deploykit_tflite.tflite_graph import TfliteOp, TfliteTensor

ONE = QuantParams((0.5,), (0,))
MANY = QuantParams((0.5, 0.25), (0, 0), "int8", 0)


def tensor(dtype: str, shape: tuple[int, ...] = (1, 2, 2, 2), params: QuantParams | None = None):
    return TfliteTensor("t", shape, dtype, params)


F, Q = tensor("float32"), tensor("int8", params=ONE)
F5, Q5 = tensor("float32", (1,) * 5), tensor("int8", (1,) * 5, ONE)
W8, W8C = tensor("int8", params=ONE), tensor("int8", params=MANY)
NARROW = tensor("float32", (4, 1, 1, 1))
H = tensor("float16")
FINE = QuantParams((0.01,), (0,))


@pytest.mark.parametrize(
    ("code", "inputs", "outputs", "fields", "version"),
    [
        ("CONV_2D", [F, F, F], [F], {}, 1),
        ("CONV_2D", [F, W8, F], [F], {}, 2),
        ("CONV_2D", [Q, Q, Q], [Q], {}, 3),
        ("CONV_2D", [F, W8C, F], [F], {}, 5),
        ("CONV_2D", [F, NARROW, F], [F], {}, 6),
        ("DEPTHWISE_CONV_2D", [F, F, F], [F], {"dilationHFactor": 1, "dilationWFactor": 1}, 1),
        ("DEPTHWISE_CONV_2D", [F, F, F], [F], {"dilationHFactor": 2, "dilationWFactor": 2}, 2),
        ("DEPTHWISE_CONV_2D", [Q, Q, Q], [Q], {"dilationHFactor": 2, "dilationWFactor": 2}, 3),
        ("FULLY_CONNECTED", [F, F, F], [F], {}, 1),
        ("FULLY_CONNECTED", [F, W8, F], [F], {}, 3),
        ("FULLY_CONNECTED", [Q, Q, Q], [Q], {}, 4),
        ("FULLY_CONNECTED", [F, F, F], [F], {"keepNumDims": True}, 5),
        ("FULLY_CONNECTED", [F, F], [F], {}, 6),
        ("FULLY_CONNECTED", [F, W8C, F], [F], {}, 12),
        ("ADD", [F, F], [F], {}, 1),
        ("ADD", [Q, Q], [Q], {}, 2),
        ("MUL", [Q, Q], [Q], {}, 2),
        ("MUL", [Q, Q], [tensor("int8", params=FINE)], {}, 3),
        ("SUB", [F5, F], [F], {}, 3),
        ("DIV", [F5, F], [F], {}, 2),
        ("MEAN", [Q, F], [Q], {}, 2),
        ("TRANSPOSE", [F, F], [F], {}, 1),
        ("TRANSPOSE", [Q, F], [Q], {}, 2),
        ("TRANSPOSE", [Q5, F], [Q5], {}, 4),
        ("TRANSPOSE_CONV", [F, F, F], [F], {}, 1),
        ("TRANSPOSE_CONV", [F, F, F, F], [F], {}, 3),
        ("DEQUANTIZE", [H], [F], {}, 3),
        ("DEQUANTIZE", [Q], [F], {}, 2),
        ("QUANTIZE", [F], [Q], {}, 1),
        ("RESIZE_BILINEAR", [F, F], [F], {"halfPixelCenters": True}, 3),
        ("RESIZE_BILINEAR", [Q, F], [Q], {"halfPixelCenters": False}, 2),
        ("SLICE", [F5, F, F], [F5], {}, 5),
        ("SPLIT", [F, Q], [Q], {}, 2),
        ("RESHAPE", [Q, F], [Q], {}, 1),
        ("BROADCAST_TO", [F, F], [F], {}, 2),
    ],
)
def test_versions(code, inputs, outputs, fields, version) -> None:
    tensors = [*inputs, *outputs]
    op = TfliteOp(
        code,
        tuple(range(len(inputs))),
        tuple(range(len(inputs), len(tensors))),
        "",
        fields,
    )
    assert op_version(op, tensors) == version
    assert runtime_of(code, version) is not None


def test_every_operator_with_a_rule_has_runtimes() -> None:
    assert {code for code, _ in _RUNTIMES} == set(_RULES)


def test_runtimes_are_compared_as_numbers() -> None:
    assert newest_runtime(["2.9.0", "2.10.0", "1.15.0"]) == "2.10.0"
