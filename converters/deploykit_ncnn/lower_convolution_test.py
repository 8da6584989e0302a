"""Convolutions and linear layers, float and int8, run by ncnn and compared with ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploykit.model import Model, Precision
from deploykit_ncnn.ncnn_harness_test import (
    Arrays,
    Written,
    assert_float_parity,
    normal,
    quantized,
    random_inputs,
    run_onnxruntime,
    stage_of,
    write,
)

FEW = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
PAIRS = st.tuples(st.integers(1, 3), st.integers(1, 3))

#: Activation in ONNX > number and parameters in a layer.
ACTIVATIONS = {
    "Relu(c)": (1, None),
    "LeakyRelu<alpha=0.2>(c)": (2, (0.2,)),
    "Clip(c, zero, six)": (3, (0.0, 6.0)),
    "Sigmoid(c)": (4, None),
    "HardSwish(c)": (6, (0.16666667, 0.5)),
}
BOUNDS = {"zero": np.float32(0), "six": np.float32(6)}


def conv(
    cin: int,
    cout: int,
    group: int = 1,
    kernel: int = 3,
    *,
    bias: bool = True,
    activation: str = "",
    size: int = 9,
) -> Model:
    pad = kernel // 2
    weights = normal(cout, cin // group, kernel, kernel)
    constants = {"W": weights} | ({"b": normal(cout, seed=1)} if bias else {})
    attributes = f"kernel_shape=[{kernel},{kernel}], pads=[{pad},{pad},{pad},{pad}], group={group}"
    operands = "x, W, b" if bias else "x, W"
    if not activation:
        return stage_of(
            f"y = Conv<{attributes}>({operands})", f"float[1,{cin},{size},7] x", "y", constants
        )
    used = {k: v for k, v in BOUNDS.items() if k in activation}
    body = f"c = Conv<{attributes}>({operands}) y = {activation}"
    return stage_of(body, f"float[1,{cin},{size},7] x", "y", constants | used)


# -- float


@FEW
@given(
    kernel=PAIRS,
    strides=PAIRS,
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    grouping=st.sampled_from([(3, 5, 1), (8, 8, 1), (4, 4, 4), (6, 9, 3), (4, 8, 4), (16, 32, 2)]),
    bias=st.booleans(),
)
def test_convolution(
    tmp_path: Path,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    pads: tuple[int, ...],
    grouping: tuple[int, int, int],
    bias: bool,
) -> None:
    cin, cout, group = grouping
    constants = {"W": normal(cout, cin // group, *kernel)} | (
        {"b": normal(cout, seed=1)} if bias else {}
    )
    body = (
        f"y = Conv<kernel_shape={list(kernel)}, strides={list(strides)}, pads={list(pads)}, "
        f"dilations={list(dilations)}, group={group}>({'x, W, b' if bias else 'x, W'})"
    )
    model = stage_of(body, f"float[1,{cin},11,9] x", "y", constants)
    written = assert_float_parity(tmp_path, model, tolerance=1e-5)
    assert written.types == {"Convolution" if group == 1 else "ConvolutionDepthWise": 1}


@FEW
@given(
    kernel=PAIRS,
    strides=PAIRS,
    pads=st.tuples(*[st.integers(0, 1)] * 4),
    more=st.tuples(st.integers(0, 1), st.integers(0, 1)),
    grouping=st.sampled_from([(3, 5, 1), (4, 4, 4), (6, 9, 3), (8, 16, 1)]),
)
def test_transposed_convolution(
    tmp_path: Path,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    pads: tuple[int, ...],
    more: tuple[int, int],
    grouping: tuple[int, int, int],
) -> None:
    cin, cout, group = grouping
    own = [min(p, kernel[i % 2] - 1) for i, p in enumerate(pads)]
    padding = [min(m, s - 1) for m, s in zip(more, strides, strict=True)]
    constants = {"W": normal(cin, cout // group, *kernel), "b": normal(cout, seed=1)}
    body = (
        f"y = ConvTranspose<kernel_shape={list(kernel)}, strides={list(strides)}, pads={own}, "
        f"output_padding={padding}, group={group}>(x, W, b)"
    )
    model = stage_of(body, f"float[1,{cin},6,5] x", "y", constants)
    written = assert_float_parity(tmp_path, model, tolerance=1e-5)
    assert written.types == {"Deconvolution" if group == 1 else "DeconvolutionDepthWise": 1}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("cin", "cout", "group"), [(3, 8, 1), (8, 8, 8), (6, 8, 2)])
def test_an_activation_becomes_part_of_the_convolution(
    activation: str, cin: int, cout: int, group: int, tmp_path: Path
) -> None:
    written = assert_float_parity(
        tmp_path, conv(cin, cout, group, activation=activation), tolerance=1e-5
    )
    (layer,) = written.layers[1:]
    number, params = ACTIVATIONS[activation]
    assert layer.params[9] == number
    assert layer.params.get(10) == params
    assert layer.outputs == ("out0",)
    assert "c" not in written.artifact.value_names


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_activation_becomes_part_of_linear_and_transposed_layers(
    activation: str, tmp_path: Path
) -> None:
    used = {k: v for k, v in BOUNDS.items() if k in activation}
    linear = stage_of(
        f"c = Gemm<transB=1>(x, W, b) y = {activation}",
        "float[1,12] x",
        "y",
        {"W": normal(5, 12), "b": normal(5, seed=1)} | used,
    )
    assert assert_float_parity(tmp_path, linear).types == {"InnerProduct": 1}
    transposed = stage_of(
        f"c = ConvTranspose<kernel_shape=[2,2], strides=[2,2]>(x, W, b) y = {activation}",
        "float[1,3,5,4] x",
        "y",
        {"W": normal(3, 5, 2, 2), "b": normal(5, seed=1)} | used,
    )
    assert assert_float_parity(tmp_path, transposed).types == {"Deconvolution": 1}


def test_an_activation_stays_where_its_input_is_read_elsewhere(tmp_path: Path) -> None:
    body = "c = Conv<kernel_shape=[1,1]>(x, W) r = Relu(c) y = Add(r, c)"
    model = stage_of(body, "float[1,3,5,4] x", "y", {"W": normal(4, 3, 1, 1)})
    written = assert_float_parity(tmp_path, model)
    assert written.types == {"Convolution": 1, "Split": 1, "ReLU": 1, "BinaryOp": 1}


def test_an_activation_stays_where_its_input_is_an_output(tmp_path: Path) -> None:
    body = "c = Conv<kernel_shape=[1,1]>(x, W) y = Relu(c)"
    model = stage_of(body, "float[1,3,5,4] x", "y, c", {"W": normal(4, 3, 1, 1)})
    assert assert_float_parity(tmp_path, model).types["ReLU"] == 1


def squeeze(gate: str = "HardSigmoid<alpha=0.16666667, beta=0.5>(e)") -> Model:
    body = (
        "m = ReduceMean<keepdims=1>(x, hw) s = Conv<kernel_shape=[1,1]>(m, W, b) r = Relu(s) "
        f"e = Conv<kernel_shape=[1,1]>(r, V, d) g = {gate} y = Mul(x, g)"
    )
    constants = {
        "hw": np.asarray([2, 3], np.int64),
        "W": normal(4, 16, 1, 1),
        "b": normal(4, seed=1),
        "V": normal(16, 4, 1, 1, seed=2),
        "d": normal(16, seed=3),
    }
    return stage_of(body, "float[1,16,5,4] x", "y", constants)


@pytest.mark.parametrize(
    "gate", ["HardSigmoid<alpha=0.16666667, beta=0.5>(e)", "Sigmoid(e)", "HardSwish(e)"]
)
def test_squeeze_and_excite_is_linear_layers_of_a_vector(gate: str, tmp_path: Path) -> None:
    written = assert_float_parity(tmp_path, squeeze(gate))
    assert written.types["InnerProduct"] == 2
    assert written.types["Convolution"] == 0
    assert written.types["Reshape"] == 1
    assert written.artifact.value_specs["m"].shape == (16, 1, 1)


def test_a_vector_that_an_output_is(tmp_path: Path) -> None:
    body = (
        "m = ReduceMean<keepdims=1>(x, hw) c = Conv<kernel_shape=[1,1]>(m, W) "
        "f = Reshape(c, flat) y = Relu(f)"
    )
    constants = {
        "hw": np.asarray([2, 3], np.int64),
        "W": normal(6, 16, 1, 1),
        "flat": np.asarray([1, 6], np.int64),
    }
    model = stage_of(body, "float[1,16,5,4] x", "y, m, f", constants)
    written = assert_float_parity(tmp_path, model)
    assert written.types["Flatten"] == 0


# -- int8


def int8(tmp_path: Path, model: Model, inputs: Arrays | None = None, **options: str) -> Written:
    inputs = random_inputs(model) if inputs is None else inputs
    return write(tmp_path, quantized(model, inputs), Precision.INT8, **options)


def assert_int8_parity(written: Written, model: Model, *, tolerance: float = 1e-3) -> None:
    """With its own inputs, ncnn's layers make what ONNX Runtime's simulation of them makes."""
    inputs = random_inputs(model)
    wanted = run_onnxruntime(quantized(model, inputs), inputs)
    for packing in (True, False):
        found = written.run(inputs, packing=packing)
        for name, want in wanted.items():
            scale = float(np.abs(want).max())
            difference = np.abs(found[name] - want) / scale
            # A value in the middle between two integers goes either way; few do.
            assert np.quantile(difference, 0.98) <= tolerance, name
            assert difference.max() <= 2e-2, name


SHAPES = [
    (3, 16, 1, 3),
    (8, 16, 1, 1),
    (5, 7, 1, 3),
    (32, 32, 1, 3),
    (8, 8, 8, 3),
    (7, 7, 7, 5),
    (16, 16, 4, 3),
    (12, 6, 3, 1),
    (24, 24, 3, 1),
    (16, 32, 2, 3),
    (4, 8, 4, 3),
]


@pytest.mark.parametrize(("cin", "cout", "group", "kernel"), SHAPES)
@pytest.mark.parametrize("activation", ["", *ACTIVATIONS])
def test_int8_convolution(
    cin: int, cout: int, group: int, kernel: int, activation: str, tmp_path: Path
) -> None:
    model = conv(cin, cout, group, kernel, activation=activation)
    written = int8(tmp_path, model)
    assert_int8_parity(written, model)
    layers = [x for x in written.layers if 8 in x.params]
    split = group > 1 and not group == cin == cout and cout // group % 8 == 0
    assert [x.params[8] for x in layers] == ([2] * group if split else [2 if group == 1 else 1])


def test_int8_without_bias(tmp_path: Path) -> None:
    model = conv(8, 16, bias=False)
    assert_int8_parity(int8(tmp_path, model), model)


def test_int8_weights_and_scales_are_those_of_the_stage(tmp_path: Path) -> None:
    model = conv(4, 6)
    inputs = random_inputs(model)
    data = int8(tmp_path, model, inputs).artifact.companions[".bin"]
    weights = np.frombuffer(data, np.int8, 6 * 4 * 9, 4).reshape(6, 36)
    floats = np.frombuffer(data, "<f4", offset=4 + 216)
    bias, scales, source = floats[:6], floats[6:12], floats[12:]
    reals = normal(6, 4, 3, 3).reshape(6, 36)
    np.testing.assert_allclose(scales, 127 / np.abs(reals).max(axis=1), rtol=1e-6)
    np.testing.assert_array_equal(weights, np.rint(reals * scales[:, None]))
    np.testing.assert_array_equal(bias, normal(6, seed=1))
    np.testing.assert_allclose(source, [127 / np.abs(inputs["x"]).max()], rtol=1e-6)


def test_the_channels_of_a_group_share_a_scale(tmp_path: Path) -> None:
    model = conv(12, 6, 3, 1)
    layer = int8(tmp_path, model).layer("ConvolutionDepthWise")
    assert layer.params[7] == 3
    data = (tmp_path / "tiny.int8.bin").read_bytes()
    assert len(data) == 4 + 24 + 4 * (6 + 3 + 1)


CHAIN = (
    "a = Conv<kernel_shape=[1,1]>(x, W, b) r = Relu(a) "
    "d = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=16>(r, D, e) "
    "q = Clip(d, zero, six) y = Conv<kernel_shape=[1,1]>(q, V)"
)
CHAIN_CONSTANTS = {
    "W": normal(16, 8, 1, 1),
    "b": normal(16, seed=1),
    "D": normal(16, 1, 3, 3, seed=2),
    "e": normal(16, seed=3),
    "V": normal(8, 16, 1, 1, seed=4),
    **BOUNDS,
}


def test_convolutions_in_a_row_hand_on_integers(tmp_path: Path) -> None:
    model = stage_of(CHAIN, "float[1,8,7,9] x", "y", CHAIN_CONSTANTS)
    inputs = random_inputs(model)
    written = int8(tmp_path, model, inputs)
    assert [x.params[8] for x in written.layers if 8 in x.params] == [102, 101, 2]
    assert written.artifact.summary["requantized"] == 2
    assert_int8_parity(written, model, tolerance=2e-2)
    stage = quantized(model, inputs)
    wanted = run_onnxruntime(stage, inputs, everything=True)
    found = written.run_all(inputs)
    for value in ("r_dequantized", "q_dequantized"):
        params = written.artifact.value_specs[written.artifact.value_names[value]].quantization
        assert params is not None
        assert np.abs(found[value] - wanted[value]).max() <= 2.01 * params.scale[0]


def test_integers_are_handed_on_to_all_of_several_readers(tmp_path: Path) -> None:
    body = (
        "r = Conv<kernel_shape=[1,1]>(x, W) a = Conv<kernel_shape=[1,1]>(r, V) "
        "b = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=16>(r, D) y = Add(a, b)"
    )
    constants = {
        "W": normal(16, 8, 1, 1),
        "V": normal(16, 16, 1, 1, seed=1),
        "D": normal(16, 1, 3, 3, seed=2),
    }
    model = stage_of(body, "float[1,8,7,9] x", "y", constants)
    written = int8(tmp_path, model)
    assert [x.params[8] for x in written.layers if 8 in x.params] == [102, 2, 1]
    assert_int8_parity(written, model, tolerance=1e-2)


def test_floats_are_handed_on_where_something_else_reads_them(tmp_path: Path) -> None:
    body = "r = Conv<kernel_shape=[1,1]>(x, W) a = Conv<kernel_shape=[1,1]>(r, V) y = Add(a, r)"
    constants = {"W": normal(16, 8, 1, 1), "V": normal(16, 16, 1, 1, seed=1)}
    model = stage_of(body, "float[1,8,7,9] x", "y", constants)
    written = int8(tmp_path, model)
    assert [x.params[8] for x in written.layers if 8 in x.params] == [2, 2]
    assert_int8_parity(written, model, tolerance=1e-2)


def test_requantization_can_be_left_out(tmp_path: Path) -> None:
    model = stage_of(CHAIN, "float[1,8,7,9] x", "y", CHAIN_CONSTANTS)
    written = int8(tmp_path, model, requantize="no")
    assert [x.params[8] for x in written.layers if 8 in x.params] == [2, 1, 2]
    assert_int8_parity(written, model, tolerance=2e-2)


def test_a_grouped_convolution_that_is_requantized_stays_whole(tmp_path: Path) -> None:
    body = "r = Conv<kernel_shape=[1,1], group=2>(x, W) y = Conv<kernel_shape=[1,1]>(r, V)"
    constants = {"W": normal(16, 4, 1, 1), "V": normal(8, 16, 1, 1, seed=1)}
    model = stage_of(body, "float[1,8,7,9] x", "y", constants)
    written = int8(tmp_path, model)
    assert written.types == {"ConvolutionDepthWise": 1, "Convolution": 1}
    assert written.layer("ConvolutionDepthWise").params[8] == 101
    assert_int8_parity(written, model, tolerance=1e-2)


def test_int8_linear_layer(tmp_path: Path) -> None:
    constants = {"W": normal(5, 16), "b": normal(5, seed=1)}
    model = stage_of("y = Gemm<transB=1>(x, W, b)", "float[1,16] x", "y", constants)
    written = int8(tmp_path, model)
    assert written.layer("InnerProduct").params[8] == 2
    assert_int8_parity(written, model)


def test_int8_squeeze_and_excite(tmp_path: Path) -> None:
    model = squeeze()
    written = int8(tmp_path, model)
    assert [x.params[8] for x in written.layers if x.type == "InnerProduct"] == [2, 2]
    assert_int8_parity(written, model, tolerance=2e-2)


def test_what_ncnn_computes_in_floats_stays_float(tmp_path: Path) -> None:
    body = (
        "t = ConvTranspose<kernel_shape=[2,2], strides=[2,2]>(x, W) "
        "p = AveragePool<kernel_shape=[2,2], strides=[2,2]>(t) s = Add(p, x) y = Sigmoid(s)"
    )
    model = stage_of(body, "float[1,4,6,5] x", "y", {"W": normal(4, 4, 2, 2)})
    inputs = random_inputs(model)
    assert run_onnxruntime(quantized(model, inputs), inputs)["y"].tolist() == (
        run_onnxruntime(model, inputs)["y"].tolist()
    )
