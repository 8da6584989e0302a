"""Convolutions and linear layers in integers, run by ncnn and compared with ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deploykit.model import Model, Precision
from deploykit_ncnn.lower_convolution_test import ACTIVATIONS, BOUNDS, conv, squeeze
from deploykit_testing.ncnn import (
    Arrays,
    Written,
    error_of,
    normal,
    quantized,
    random_inputs,
    run_onnxruntime,
    stage_of,
    write,
)


def int8(tmp_path: Path, model: Model, inputs: Arrays | None = None, **options: str) -> Written:
    inputs = random_inputs(model) if inputs is None else inputs
    options = {"depthwise": "int8", **options}
    return write(tmp_path, quantized(model, inputs, **options), Precision.INT8, **options)


def assert_int8_parity(written: Written, model: Model, *, tolerance: float = 1e-3) -> None:
    """With its own inputs, ncnn's layers make what ONNX Runtime's simulation of them makes."""
    inputs = random_inputs(model)
    wanted = run_onnxruntime(quantized(model, inputs, depthwise="int8"), inputs)
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


def test_int8_with_depthwise_convolutions_in_floats(tmp_path: Path) -> None:
    body = (
        "c = Conv<kernel_shape=[1,1]>(x, W) r = Relu(c) "
        "d = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=8>(r, D) "
        "e = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=8>(d, E) "
        "y = Conv<kernel_shape=[1,1], group=2>(e, V)"
    )
    constants = {
        "W": normal(8, 3, 1, 1),
        "D": normal(8, 1, 3, 3, seed=1),
        "E": normal(16, 1, 3, 3, seed=2),
        "V": normal(6, 8, 1, 1, seed=3),
    }
    model = stage_of(body, "float[1,3,9,7] x", "y", constants)
    inputs = random_inputs(model)
    stage = quantized(model, inputs, depthwise="float32")
    written = write(tmp_path, stage, Precision.INT8, depthwise="float32")
    assert [x.params.get(8, 0) for x in written.layers[1:]] == [2, 0, 0, 1]
    assert written.artifact.summary["int8_layers"] == 2
    wanted = run_onnxruntime(stage, inputs)["y"]
    assert error_of(written.run(inputs)["y"], wanted) <= 2e-2
    # ... which is the default; in integers where that is asked for.
    assert write(tmp_path, quantized(model, inputs), Precision.INT8).artifact == written.artifact
    integers = quantized(model, inputs, depthwise="int8")
    whole = write(tmp_path, integers, Precision.INT8, depthwise="int8")
    assert whole.artifact.summary["int8_layers"] == 4


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
    stage = quantized(model, inputs, depthwise="int8")
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
