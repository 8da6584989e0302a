"""BatchNormalization of quantized models: exact, in integers, or left with the reason."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from deploykit.graph.qdq import fold_qdq
from deploykit.graph.read_qdq import integers_of
from deploykit.passes.fold_batchnorm import FoldBatchnorm
from deploykit.passes.fold_quantized_batchnorm import FoldQuantizedBatchnorm
from deploykit.passes.remove_unused import RemoveUnused
from deploykit.tensors import Array
from deploykit_testing.graphs import (
    HEADER,
    assert_described,
    assert_same_numbers,
    ops,
    prepare,
    reasons,
)

PARAMS = "float[4] gamma, float[4] beta, float[4] mean, float[4] var"
CONV = "Conv <kernel_shape = [1, 1]> (xd, w, bias)"
#: One channel keeps its sign, one is mirrored, one vanishes.
GAMMA = np.array([0.7, -1.2, 0.0, 2.0], np.float32)


def network(
    linear: str = CONV,
    *,
    shape: str = "1, 3, 5, 5",
    result: str = "1, 4, 5, 5",
    before_batchnorm: str = "",
    end: str = "",
) -> str:
    """x → Q, DQ → a linear op with integer weights → BatchNormalization."""
    return f"""g (float[{shape}] x) => (float[{result}] y)
      <float s = {{0.05}}, int8 z = {{3}}, float t = {{0.1}}, int8 u = {{-9}}> {{
        xq = QuantizeLinear (x, s, z)
        xd = DequantizeLinear (xq, s, z)
        w = DequantizeLinear <axis = 0> (q, ws, wz)
        l = {linear}
        {before_batchnorm or "c = Identity (l)"}
        b = BatchNormalization (c, gamma, beta, mean, var)
        {end or "y = Identity (b)"} }}"""


def model_of(text: str, integers: Array, zero: int = 0) -> ir.Model:
    """In canonical form, with its constants."""
    proto = onnx.parser.parse_model(HEADER + text)
    rng = np.random.default_rng(0)
    constants = {
        "gamma": GAMMA,
        "beta": rng.standard_normal(4),
        "mean": rng.standard_normal(4),
        "var": rng.uniform(0.3, 2.0, 4),
        "bias": rng.standard_normal(4),
        "ws": np.array([0.01, 0.02, 0.03, 0.04]),
    }
    arrays = {name: array.astype(np.float32) for name, array in constants.items()}
    arrays |= {"q": integers, "wz": np.full(4, zero, integers.dtype)}
    read = {name for node in proto.graph.node for name in node.input}
    for name, array in arrays.items():
        if name in read:
            proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return prepare(ir.from_proto(proto))


def fold(model: ir.Model) -> tuple[ir.Model, list[str], list[str]]:
    """After both passes; what the first matched, and what it left."""
    after = model.clone()
    notes = FoldQuantizedBatchnorm().apply(after).notes
    FoldBatchnorm().apply(after)
    RemoveUnused().apply(after)
    assert_described(after)
    return after, reasons(notes, matched=True), reasons(notes)


def integers(*shape: int, low: int = -127) -> Array:
    return np.random.default_rng(2).integers(low, 128, shape).astype(np.int8)


@pytest.mark.parametrize(
    ("linear", "shapes", "size"),
    [
        (CONV, {}, (4, 3, 1, 1)),
        ("Conv <kernel_shape = [1, 1]> (xd, w)", {}, (4, 3, 1, 1)),
        (
            "Conv <kernel_shape = [3, 3], group = 4, pads = [1, 1, 1, 1]> (xd, w, bias)",
            {"shape": "1, 4, 5, 5"},
            (4, 1, 3, 3),
        ),
        ("Gemm <transB = 1> (xd, w, bias)", {"shape": "1, 3", "result": "1, 4"}, (4, 3)),
    ],
)
def test_into_integer_weights_exactly(
    linear: str, shapes: dict[str, str], size: tuple[int, ...]
) -> None:
    before = model_of(network(linear, **shapes), integers(*size))
    after, matched, _ = fold(before)
    assert len(matched) == 1
    assert ops(after)[-1] in ("Conv", "Gemm")
    assert_same_numbers(before, after)
    (node,) = [n for n in after.graph if n.op_type in ("Conv", "Gemm")]
    held = integers_of(node.inputs[1])
    assert held is not None
    found, params = held
    signs = np.sign(GAMMA).astype(np.int64).reshape(-1, *[1] * (len(size) - 1))
    np.testing.assert_array_equal(found, integers(*size) * signs)
    assert params.axis == 0
    assert min(params.scale) > 0


def test_weights_around_128_are_mirrored_there() -> None:
    data = np.random.default_rng(2).integers(1, 256, (4, 3, 1, 1)).astype(np.uint8)
    before = model_of(network(), data, zero=128)
    after, matched, _ = fold(before)
    assert matched
    assert_same_numbers(before, after)


def test_a_rounded_result_becomes_a_depthwise_layer_in_integers() -> None:
    pair = "cq = QuantizeLinear (l, t, u) c = DequantizeLinear (cq, t, u)"
    end = "bq = QuantizeLinear (b, t, u) y = DequantizeLinear (bq, t, u)"
    text = network(before_batchnorm=pair, end=end)
    before = model_of(text, integers(4, 3, 1, 1))
    after, matched, _ = fold(before)
    assert matched == ["a depthwise Conv of 1 x 1 in integers"]
    assert_same_numbers(before, after)
    quantized = fold_qdq(after)
    convolutions = [n for n in quantized.model.graph if n.op_type == "Conv"]
    assert [n.attributes.get_int("group", 1) for n in convolutions] == [1, 4]
    assert all(quantized.runs_in_integers(n) for n in convolutions)


def test_integers_that_cannot_be_mirrored_are_left() -> None:
    data = integers(4, 3, 1, 1)
    data[1, 0] = -128  # in the channel whose scale is negative
    before = model_of(network(), data)
    after, matched, left = fold(before)
    assert matched == []
    assert "cannot be mirrored" in left[0]
    assert ops(after)[-2:] == ["Mul", "Add"]
    assert_same_numbers(before, after)


def test_another_reader_of_the_result_stands_in_the_way() -> None:
    before = model_of(network(end="y = Add (b, c)"), integers(4, 3, 1, 1))
    after, matched, left = fold(before)
    assert matched == []
    assert left
    assert_same_numbers(before, after)


def test_a_rounded_value_that_is_no_image_is_left() -> None:
    pair = "cq = QuantizeLinear (l, t, u) c = DequantizeLinear (cq, t, u)"
    text = network(
        "Gemm <transB = 1> (xd, w, bias)", shape="1, 3", result="1, 4", before_batchnorm=pair
    )
    before = model_of(text, integers(4, 3))
    after, matched, left = fold(before)
    assert matched == []
    assert left == ["no depthwise convolution of a value that is no image"]
    assert_same_numbers(before, after)


def test_parameters_may_be_integers_themselves() -> None:
    text = (
        network()
        .replace("b = Batch", "g = DequantizeLinear (gq, gs, gz) b = Batch")
        .replace("(c, gamma,", "(c, g,")
    )
    proto_text = text.replace("<float s", "<float gs = {0.02}, int8 gz = {0}, float s")
    proto_text = proto_text.replace("=> (", "=> (", 1)
    proto = onnx.parser.parse_model(HEADER + proto_text)
    assert "gq" in {name for node in proto.graph.node for name in node.input}
    before = _with_integer_gamma(proto)
    after, matched, _ = fold(before)
    assert len(matched) == 1
    assert "BatchNormalization" not in ops(after)
    assert_same_numbers(before, after)


def _with_integer_gamma(proto: onnx.ModelProto) -> ir.Model:
    rng = np.random.default_rng(0)
    arrays = {name: rng.uniform(0.3, 2.0, 4) for name in ("beta", "mean", "var", "bias", "ws")}
    constants: dict[str, Array] = {n: a.astype(np.float32) for n, a in arrays.items()}
    constants |= {"q": integers(4, 3, 1, 1), "wz": np.zeros(4, np.int8)}
    constants["gq"] = np.array([50, -60, 0, 100], np.int8)
    for name, array in constants.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return prepare(ir.from_proto(proto))
