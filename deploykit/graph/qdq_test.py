"""Hand-written QDQ models, and onnxruntime's; those of deploykit_quantize are tested there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from deploykit.errors import UnsupportedModelError
from deploykit.graph.qdq import QuantizedGraph, fold_qdq, has_qdq, with_signed_integers
from deploykit.tensors import QuantParams
from deploykit_testing.graphs import parse
from deploykit_testing.quantized import (
    NETWORK,
    fused,
    run_values,
    samples_of,
    simulate,
)

CONSTANTS = """float s1 = {0.5}, float s2 = {0.25}, int8 z1 = {3}, int8 z0 = {0}, uint8 u = {131},
    float k = {1.5}, int8[1, 1, 2, 2] kq = {2, -2, 4, 6}, int32[1] bq = {8}, float bs = {0.125},
    int8[1, 1, 1, 1] wq = {3}, int64[2] flat = {1, 4}"""


def network(body: str, outputs: str = "float[1, 1, 2, 2] y", inputs: str = "") -> ir.Model:
    first = inputs or "float[1, 1, 2, 2] x"
    return parse(f"agraph ({first}) => ({outputs}) <{CONSTANTS}> {{ {body} }}")


def rows(graph: QuantizedGraph) -> list[str]:
    """Each node as ``op(inputs) → outputs``; values with parameters are marked with a star."""

    def show(values: tuple[ir.Value | None, ...]) -> str:
        return ", ".join(f"{v.name}{'*' * (v.name in graph.params)}" for v in values if v)

    return [f"{n.op_type}({show(n.inputs)}) > {show(n.outputs)}" for n in graph.model.graph]


QDQ_X = "q = QuantizeLinear (x, s1, z1)  d = DequantizeLinear (q, s1, z1) "
QDQ_Y = "qy = QuantizeLinear (v, s2, z1)  y = DequantizeLinear (qy, s2, z1) "


def test_has_qdq() -> None:
    assert has_qdq(network(QDQ_X + "y = Relu (d)"))
    assert not has_qdq(network("y = Relu (x)"))


def test_a_quantized_op_between_pairs() -> None:
    folded = fold_qdq(network(QDQ_X + "v = Relu (d)" + QDQ_Y))
    assert rows(folded) == ["Relu(x*) > y*"]
    assert folded.params == {"x": QuantParams((0.5,), (3,)), "y": QuantParams((0.25,), (3,))}
    assert folded.stage_values == {"x": "d", "y": "y"}
    assert folded.runs_in_integers(folded.model.graph[0])


def test_the_given_model_is_left_as_it_is() -> None:
    model = network(QDQ_X + "v = Relu (d)" + QDQ_Y)
    before = ir.to_proto(model).SerializeToString()
    fold_qdq(model)
    assert ir.to_proto(model).SerializeToString() == before


def test_several_dequantizes_of_one_quantize() -> None:
    folded = fold_qdq(
        network(
            """q = QuantizeLinear (x, s1, z1)
            d1 = DequantizeLinear (q, s1, z1)  d2 = DequantizeLinear (q, s1, z1)
            v = Add (d1, d2)"""
            + QDQ_Y
        )
    )
    assert rows(folded) == ["Add(x*, x*) > y*"]


def test_float_readers_before_the_quantize_are_not_given_rounded_values() -> None:
    model = network(
        QDQ_X
        + """v = Relu (d)
        qv = QuantizeLinear (v, s2, z1)  dv = DequantizeLinear (qv, s2, z1)
        e = Elu (v)
        w = Mul (dv, dv)
        qw = QuantizeLinear (w, s2, z1)  y = DequantizeLinear (qw, s2, z1)""",
        "float[1, 1, 2, 2] y, float[1, 1, 2, 2] e",
    )
    folded = fold_qdq(model)
    assert rows(folded) == [
        "DequantizeLinear(x*) > d",
        "Relu(d) > v",
        "QuantizeLinear(v) > dv*",
        "Elu(v) > e",
        "Mul(dv*, dv*) > y*",
    ]
    feed = {"x": np.float32([[[[0.3, 1.1], [2.6, -1.0]]]])}
    simulated, staged = simulate(folded, feed), run_values(model, feed)
    for name, held in folded.stage_values.items():
        np.testing.assert_array_equal(simulated[name], staged[held], err_msg=name)


def test_a_float_op_between_integers() -> None:
    model = network(
        QDQ_X
        + """a = Relu (d)
        qa = QuantizeLinear (a, s2, z1)  da = DequantizeLinear (qa, s2, z1)
        v = Elu (da)  r = Relu (da)
        y = Add (v, r)"""
    )
    assert rows(fold_qdq(model)) == [
        "Relu(x*) > a*",
        "DequantizeLinear(a*) > da",
        "Elu(da) > v",
        "Relu(da) > r",
        "Add(v, r) > y",
    ]


def test_requantization_stays_a_node_and_an_idle_one_goes() -> None:
    again = """q2 = QuantizeLinear (d, s2, z1)  d2 = DequantizeLinear (q2, s2, z1)
        v = Relu (d2)"""
    folded = fold_qdq(network(QDQ_X + again + QDQ_Y))
    assert rows(folded) == ["QuantizeLinear(x*) > d2*", "Relu(d2*) > y*"]
    assert folded.params["d2"].scale == (0.25,)
    assert folded.stage_values["d2"] == "d2"
    idle = fold_qdq(network(QDQ_X + again.replace("s2", "s1") + QDQ_Y))
    assert rows(idle) == ["Relu(x*) > y*"]


def test_an_activation_right_behind_its_op_needs_no_scale_between() -> None:
    body = """w = DequantizeLinear (wq, s1)  c = Conv <kernel_shape = [1, 1]> (d, w)
        v = Relu (c)"""
    folded = fold_qdq(network(QDQ_X + body + QDQ_Y))
    assert rows(folded) == ["Conv(x*, wq*) > c", "Relu(c) > y*"]
    assert all(folded.runs_in_integers(n) for n in folded.model.graph)
    # If the activation ends in float, so does the op.
    folded = fold_qdq(network(QDQ_X + body + " y = Identity (v)"))
    assert [n.op_type for n in folded.model.graph] == [
        "DequantizeLinear", "Conv", "Relu", "Identity"
    ]  # fmt: skip
    assert not any(folded.runs_in_integers(n) for n in folded.model.graph)


def test_biases_come_out_as_int32_of_input_times_weights() -> None:
    conv = "w = DequantizeLinear (wq, s2)  v = Conv <kernel_shape = [1, 1]> (d, w, {}) "
    fitting = fold_qdq(network(QDQ_X + "b = DequantizeLinear (bq, bs) " + conv.format("b") + QDQ_Y))
    (bias,) = [n for n, p in fitting.params.items() if p.dtype == "int32"]
    assert fitting.params[bias].scale == (0.125,)
    assert fitting.integers[bias].tolist() == [8]
    other = fold_qdq(network(QDQ_X + "b = DequantizeLinear (bq, s1) " + conv.format("b") + QDQ_Y))
    (bias,) = [n for n, p in other.params.items() if p.dtype == "int32"]
    assert other.params[bias].scale == (0.125,)
    assert other.integers[bias].tolist() == [32]  # 8 x 0.5 = 32 x 0.125


def test_a_float_bias_is_quantized() -> None:
    text = (
        QDQ_X + "w = DequantizeLinear (wq, s2)  v = Conv <kernel_shape = [1, 1]> (d, w, b) " + QDQ_Y
    )
    model = parse(
        f"""agraph (float[1, 1, 2, 2] x) => (float[1, 1, 2, 2] y)
            <{CONSTANTS}, float[1] b = {{1.5}}> {{ {text} }}"""
    )
    folded = fold_qdq(model)
    assert len(folded.model.graph) == 1
    (bias,) = [n for n, p in folded.params.items() if p.dtype == "int32"]
    assert folded.integers[bias].tolist() == [12]


def test_a_bias_that_int32_cannot_hold_is_refused() -> None:
    text = (
        QDQ_X + "w = DequantizeLinear (wq, s2)  v = Conv <kernel_shape = [1, 1]> (d, w, b) " + QDQ_Y
    )
    model = parse(
        f"""agraph (float[1, 1, 2, 2] x) => (float[1, 1, 2, 2] y)
            <{CONSTANTS}, float[1] b = {{1e10}}> {{ {text} }}"""
    )
    with pytest.raises(UnsupportedModelError, match="does not fit into int32"):
        fold_qdq(model)


def test_constants_as_integers_and_as_floats_behind_a_quantize() -> None:
    folded = fold_qdq(network(QDQ_X + "c = DequantizeLinear (kq, s2, z0)  v = Add (d, c)" + QDQ_Y))
    (name,) = folded.integers
    assert folded.integers[name].dtype == np.int8
    value = folded.model.graph.initializers[name]
    assert value.dtype is ir.DataType.FLOAT
    assert value.const_value is not None
    assert value.const_value.numpy().ravel().tolist() == [0.5, -0.5, 1.0, 1.5]
    folded = fold_qdq(
        network(
            QDQ_X
            + """qc = QuantizeLinear (k, s2, z0)  c = DequantizeLinear (qc, s2, z0)
            v = Add (d, c)"""
            + QDQ_Y
        )
    )
    (name,) = folded.integers
    assert folded.integers[name] == 6
    assert [n.op_type for n in folded.model.graph] == ["Add"]


def test_a_float_constant_keeps_its_op_in_float() -> None:
    folded = fold_qdq(network(QDQ_X + "v = Add (d, k)" + QDQ_Y))
    assert rows(folded) == [
        "DequantizeLinear(x*) > d", "Add(d, k) > v", "QuantizeLinear(v) > y*"
    ]  # fmt: skip


def test_ops_with_several_outputs_run_in_integers_if_all_are_quantized() -> None:
    body = """a, b = Split <axis = 3, num_outputs = 2> (d)
        qa = QuantizeLinear (a, s2, z1)  da = DequantizeLinear (qa, s2, z1)
        qb = QuantizeLinear (b, s2, z1)  db = DequantizeLinear (qb, s2, z1)
        v = Concat <axis = 3> ({}, db)"""
    assert rows(fold_qdq(network(QDQ_X + body.format("da") + QDQ_Y))) == [
        "Split(x*) > a*, b*", "Concat(a*, b*) > y*"
    ]  # fmt: skip
    half = fold_qdq(network(QDQ_X + body.format("a") + QDQ_Y))
    assert rows(half) == [
        "DequantizeLinear(x*) > d",
        "Split(d) > a, b",
        "QuantizeLinear(b) > db*",
        "DequantizeLinear(db*) > db_dequantized",
        "Concat(a, db_dequantized) > v",
        "QuantizeLinear(v) > y*",
    ]


def test_integer_inputs_and_outputs_of_the_graph() -> None:
    model = network(
        "d = DequantizeLinear (x, s1, z1)  v = Relu (d)  y = QuantizeLinear (v, s2, z1)",
        "int8[1, 1, 2, 2] y",
        "int8[1, 1, 2, 2] x",
    )
    folded = fold_qdq(model)
    assert rows(folded) == ["Relu(x*) > y*"]
    assert folded.stage_values == {"x": "d"}  # no value of the stage holds y's reals
    assert [v.name for v in folded.model.graph.outputs] == ["y"]
    assert {v.dtype for v in (*folded.model.graph.inputs, *folded.model.graph.outputs)} == {
        ir.DataType.FLOAT
    }


def test_two_graph_outputs_of_one_quantize_keep_their_names() -> None:
    model = network(
        QDQ_X
        + """v = Relu (d)  q2 = QuantizeLinear (v, s2, z1)
        y = DequantizeLinear (q2, s2, z1)  e = DequantizeLinear (q2, s2, z1)""",
        "float[1, 1, 2, 2] y, float[1, 1, 2, 2] e",
    )
    folded = fold_qdq(model)
    assert [v.name for v in folded.model.graph.outputs] == ["y", "e"]
    feed = {"x": np.float32([[[[0.3, 1.1], [2.6, -1.0]]]])}
    simulated, staged = simulate(folded, feed), run_values(model, feed)
    for name in ("y", "e"):
        np.testing.assert_array_equal(simulated[name], staged[name])


def test_unsigned_integers_move_to_signed_ones() -> None:
    folded = fold_qdq(
        network(
            """q = QuantizeLinear (x, s1, u)  d = DequantizeLinear (q, s1, u)  v = Relu (d)
            q2 = QuantizeLinear (v, s2)  y = DequantizeLinear (q2, s2)"""
        )
    )
    assert folded.params["x"] == QuantParams((0.5,), (131,), "uint8")
    assert folded.params["y"] == QuantParams((0.25,), (0,), "uint8")
    signed = with_signed_integers(folded)
    assert signed.params["x"] == QuantParams((0.5,), (3,))
    assert signed.params["y"] == QuantParams((0.25,), (-128,))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "sc = Mul (x, x) q = QuantizeLinear (x, sc, z1) y = DequantizeLinear (q, sc, z1)",
            "computed",
        ),
        (
            "q = QuantizeLinear (x, s1, z1) r = Identity (q) y = DequantizeLinear (r, s1, z1)",
            "computes with the integers",
        ),
        ("q = QuantizeLinear (x, s1, z1) y = DequantizeLinear (q, s2, z1)", "other parameters"),
    ],
)
def test_refusals(body: str, message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        fold_qdq(network(body))


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("symmetric", [False, True])
def test_models_of_onnxruntimes_quantizer(
    per_channel: bool, symmetric: bool, tmp_path: Path
) -> None:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    model = fused(NETWORK)
    model.save(tmp_path / "float.onnx")
    samples = samples_of(model, 8)

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.feeds = iter([{"x": s[None]} for s in samples])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    quantize_static(
        tmp_path / "float.onnx",
        tmp_path / "int8.onnx",
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=per_channel,
        activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        extra_options={"ActivationSymmetric": symmetric},
    )
    brought = ir.from_proto(onnx.load(tmp_path / "int8.onnx"))
    assert has_qdq(brought)
    folded = fold_qdq(brought)
    # It leaves what is between two ops that it does not quantize (ReduceMean → Reshape) in float.
    floats = [n.op_type for n in folded.model.graph if not folded.runs_in_integers(n)]
    assert floats == ["DequantizeLinear", "ReduceMean", "Reshape", "QuantizeLinear"]
    assert {f"W{i}" for i in range(7)} | {f"B{i}" for i in (0, 1, 2, 3, 4, 6)} <= set(folded.params)
    assert {v.name for v in folded.model.graph.outputs} == {"y"}
    for sample in samples[:3]:
        feed = {"x": sample[None]}
        simulated, staged = simulate(with_signed_integers(folded), feed), run_values(brought, feed)
        steps = np.abs(simulated["y"] - staged["y"]) / folded.params["y"].scale[0]
        assert steps.max() <= 1.01
