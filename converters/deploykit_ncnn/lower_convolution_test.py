"""Convolutions and linear layers in floats, run by ncnn and compared with ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploykit.model import Model
from deploykit_testing.ncnn import (
    assert_float_parity,
    normal,
    random_inputs,
    stage_of,
)

FEW = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
PAIRS = st.tuples(st.integers(1, 3), st.integers(1, 3))

#: Activation in ONNX → number and parameters in a layer.
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


def squeeze(
    gate: str = "HardSigmoid<alpha=0.16666667, beta=0.5>(e)",
    size: str = "5,4",
    scaled: str = "Mul(x, g)",
) -> Model:
    body = (
        "m = ReduceMean<keepdims=1>(x, hw) s = Conv<kernel_shape=[1,1]>(m, W, b) r = Relu(s) "
        f"e = Conv<kernel_shape=[1,1]>(r, V, d) g = {gate} y = {scaled}"
    )
    constants = {
        "hw": np.asarray([2, 3], np.int64),
        "W": normal(4, 16, 1, 1),
        "b": normal(4, seed=1),
        "V": normal(16, 4, 1, 1, seed=2),
        "d": normal(16, seed=3),
    }
    return stage_of(body, f"float[1,16,{size}] x", "y", constants)


@pytest.mark.parametrize(
    "gate", ["HardSigmoid<alpha=0.16666667, beta=0.5>(e)", "Sigmoid(e)", "HardSwish(e)"]
)
def test_squeeze_and_excite_is_linear_layers_of_a_vector(gate: str, tmp_path: Path) -> None:
    written = assert_float_parity(tmp_path, squeeze(gate))
    assert written.types["InnerProduct"] == 2
    assert written.types["Convolution"] == 0
    assert written.types["Reshape"] == 0
    assert written.artifact.value_specs["m"].shape == (16, 1, 1)


@pytest.mark.parametrize("size", ["16,16", "3,16", "16,3", "1,16", "1,1"])
@pytest.mark.parametrize("scaled", ["Mul(g, x)", "Sub(x, g)", "Sub(g, x)", "Max(g, x)"])
def test_a_vector_meets_a_map_channel_by_channel(size: str, scaled: str, tmp_path: Path) -> None:
    written = assert_float_parity(tmp_path, squeeze("Sigmoid(e)", size, scaled))
    assert written.types["Reshape"] == 0


@pytest.mark.parametrize("met", ["m", "t"])
def test_a_vector_is_a_map_where_it_meets_anything_else(met: str, tmp_path: Path) -> None:
    body = (
        "m = ReduceMean<keepdims=1>(x, hw) c = Conv<kernel_shape=[1,1]>(m, W) g = Sigmoid(c) "
        f"t = ReduceMax<keepdims=1>(x, c1) y = Mul(g, {met})"
    )
    constants = {
        "hw": np.asarray([2, 3], np.int64),
        "c1": np.asarray([1], np.int64),
        "W": normal(16, 16, 1, 1),
    }
    model = stage_of(body, "float[1,16,5,16] x", "y, t", constants)
    assert assert_float_parity(tmp_path, model).types["Reshape"] == (2 if met == "m" else 1)


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


def test_a_vector_of_which_only_its_flat_form_is_an_output(tmp_path: Path) -> None:
    body = (
        "m = ReduceMean<keepdims=1>(x, hw) c = Conv<kernel_shape=[1,1]>(m, W) y = Reshape(c, flat)"
    )
    constants = {
        "hw": np.asarray([2, 3], np.int64),
        "W": normal(6, 16, 1, 1),
        "flat": np.asarray([1, 6], np.int64),
    }
    model = stage_of(body, "float[1,16,5,4] x", "y", constants)
    written = assert_float_parity(tmp_path, model)
    assert set(written.run_all(random_inputs(model))) == {"m", "y"}
