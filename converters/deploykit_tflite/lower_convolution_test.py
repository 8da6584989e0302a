"""Convolutions: every geometry against ONNX Runtime, and no op that is not needed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.errors import UnsupportedOpsError
from deploykit.model import Model
from deploykit_testing.tflite import (
    assert_float_parity,
    assert_int8_parity,
    random_inputs,
    stage_of,
    write,
)
from deploykit_tflite.lower_convolution import choose_padding
from deploykit_tflite.tflite_graph import PADDING_SAME, PADDING_VALID


def conv(
    shape: tuple[int, int, int, int] = (1, 4, 8, 8),
    out: int = 6,
    kernel: int = 3,
    stride: int = 1,
    pads: tuple[int, int, int, int] = (1, 1, 1, 1),
    dilation: int = 1,
    group: int = 1,
    bias: bool = True,
    then: str = "",
    seed: int = 0,
) -> Model:
    generator = np.random.default_rng(seed)
    constants = {
        "W": generator.standard_normal((out, shape[1] // group, kernel, kernel)),
        "lo": np.float32(0),
        "six": np.float32(6),
        "three": np.float32(3),
    }
    if bias:
        constants["B"] = generator.standard_normal(out)
    attributes = (
        f"kernel_shape=[{kernel},{kernel}], strides=[{stride},{stride}], pads={list(pads)}, "
        f"dilations=[{dilation},{dilation}], group={group}"
    )
    result = "y" if not then else "c"
    used = {k for k in constants if k in ("W", "B") or k in then}
    return stage_of(
        f"{result} = Conv<{attributes}>(x, W{', B' if bias else ''}) {then}",
        f"float[{','.join(map(str, shape))}] x",
        "y",
        {k: np.asarray(v, np.float32) for k, v in constants.items() if k in used},
    )


@st.composite
def geometries(draw: st.DrawFn) -> Model:
    kernel = draw(st.integers(1, 4))
    dilation = draw(st.integers(1, 2))
    extent = dilation * (kernel - 1) + 1
    pads = draw(st.tuples(*[st.integers(0, extent - 1)] * 4))
    height, width = draw(st.integers(extent, 11)), draw(st.integers(extent, 11))
    channels = draw(st.integers(1, 6))
    group = draw(st.sampled_from([g for g in range(1, channels + 1) if channels % g == 0]))
    return conv(
        shape=(1, channels, height, width),
        out=group * draw(st.integers(1, 3)),
        kernel=kernel,
        # The runtime has no strided dilated convolution; nor has any network.
        stride=draw(st.integers(1, 3)) if dilation == 1 else 1,
        pads=pads,
        dilation=dilation,
        group=group,
        bias=draw(st.booleans()),
        seed=draw(st.integers(0, 99)),
    )


@settings(max_examples=60, deadline=None)
@given(geometries())
def test_any_geometry_gives_what_onnxruntime_gives(model: Model) -> None:
    assert_float_parity(model, tolerance=1e-5)


@settings(max_examples=25, deadline=None)
@given(geometries())
def test_any_geometry_in_int8_is_within_one_step_of_the_qdq_stage(model: Model) -> None:
    assert_int8_parity(model)


@settings(max_examples=200, deadline=None)
@given(
    size=st.integers(1, 30),
    extent=st.integers(1, 7),
    stride=st.integers(1, 4),
    before=st.integers(0, 6),
    after=st.integers(0, 6),
)
def test_padding_covers_exactly_what_windows_reach(
    size: int, extent: int, stride: int, before: int, after: int
) -> None:
    if size + before + after < extent:
        return
    output = (size + before + after - extent) // stride + 1
    found = choose_padding(
        (size, size),
        (output, output),
        (extent, extent),
        (stride, stride),
        [before, before, after, after],
    )
    reach = (output - 1) * stride + extent
    if found.rule == PADDING_SAME:
        assert output == -(-size // stride)
        assert before == max(reach - size, 0) // 2
    else:
        top, left, bottom, right = found.explicit
        assert (top, left) == (before, before)
        assert bottom == right == max(reach - size - before, 0)
        assert (size + top + bottom - extent) // stride + 1 == output


@pytest.mark.parametrize(
    ("settings_", "ops"),
    [
        ({"kernel": 1, "pads": (0, 0, 0, 0)}, ["CONV_2D"]),
        ({}, ["CONV_2D"]),  # SAME
        ({"stride": 2}, ["PAD", "CONV_2D"]),  # symmetric 1 at stride 2 is not SAME
        ({"stride": 2, "shape": (1, 4, 9, 9)}, ["CONV_2D"]),  # of an odd size it is
        ({"stride": 2, "pads": (0, 0, 1, 1)}, ["CONV_2D"]),
        ({"group": 4, "out": 4}, ["DEPTHWISE_CONV_2D"]),
        ({"group": 4, "out": 8}, ["DEPTHWISE_CONV_2D"]),
        ({"group": 2}, ["CONV_2D"]),
        ({"then": "y = Relu(c)"}, ["CONV_2D"]),
        ({"then": "y = Clip(c, lo, six)"}, ["CONV_2D"]),
    ],
)
def test_ops_are_exactly_those_needed(settings_: dict, ops: list[str]) -> None:
    written = assert_float_parity(conv(**settings_))
    assert written.ops == ops
    assert written.is_one_partition
    in_int8 = assert_int8_parity(conv(**settings_))
    assert in_int8.ops == ops
    assert in_int8.is_one_partition


def test_explicit_pad_is_only_as_large_as_what_is_read() -> None:
    written = write(conv(stride=2))
    assert list(written.tensors["x/padded"].shape) == [1, 9, 9, 4]


@pytest.mark.parametrize(
    ("then", "fused"), [("y = Relu(c)", "RELU"), ("y = Clip(c, lo, six)", "RELU6")]
)
def test_activation_is_fused(then: str, fused: str) -> None:
    assert write(conv(then=then)).fused == [fused]


def test_activation_of_a_value_with_two_readers_stays() -> None:
    model = conv(then="r = Relu(c) y = Add(r, c)")
    assert assert_float_parity(model).ops == ["CONV_2D", "RELU", "ADD"]
    assert assert_int8_parity(model).ops == ["CONV_2D", "QUANTIZE", "ADD"]


def test_clip_without_a_fused_form_stands_behind_the_convolution() -> None:
    model = conv(then="y = Clip(c, lo, three)")
    assert assert_float_parity(model).ops == ["CONV_2D", "MAXIMUM", "MINIMUM"]
    # In int8 a calibrated range within 0..3 leaves nothing of it.
    assert assert_int8_parity(model).ops == ["CONV_2D"]


@pytest.mark.parametrize(("group", "axis", "shape"), [(1, 0, [6, 3, 3, 4]), (4, 3, [1, 3, 3, 4])])
def test_int8_weights_are_symmetric_per_output_channel(
    group: int, axis: int, shape: list[int]
) -> None:
    written = assert_int8_parity(conv(group=group, out=6 if group == 1 else 4))
    tree = written.tree.subgraphs[0]
    data, weights, bias = (tree.tensors[i] for i in tree.operators[-1].inputs)
    assert list(weights.shape) == shape
    assert weights.quantization.quantizedDimension == axis
    assert not np.any(weights.quantization.zeroPoint)
    channels = shape[axis]
    assert len(weights.quantization.scale) == channels
    product = data.quantization.scale[0] * weights.quantization.scale
    np.testing.assert_allclose(bias.quantization.scale, product, rtol=1e-6)
    assert bias.quantization.quantizedDimension == 0
    assert not np.any(bias.quantization.zeroPoint)
    integers = written.tree.buffers[weights.buffer].data.view(np.int8)
    assert np.abs(integers.astype(int)).max() <= 127


@pytest.mark.parametrize(
    ("settings_", "versions"),
    [({}, {"CONV_2D": 1}), ({"group": 4, "out": 4}, {"DEPTHWISE_CONV_2D": 1})],
)
def test_versions_are_the_smallest(settings_: dict, versions: dict[str, int]) -> None:
    assert write(conv(**settings_)).versions == versions
    assert assert_int8_parity(conv(**settings_)).versions == dict.fromkeys(versions, 3)


@pytest.mark.parametrize("group", [2, 3])
def test_grouped_convolution_is_native(group: int) -> None:
    written = assert_float_parity(conv(shape=(1, 6, 8, 8), group=group))
    assert written.versions == {"CONV_2D": 6}


@settings(max_examples=40, deadline=None)
@given(
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    pad=st.integers(0, 2),
    extra=st.integers(0, 2),
    size=st.integers(2, 6),
    seed=st.integers(0, 99),
)
def test_transposed_convolution(
    kernel: int, stride: int, pad: int, extra: int, size: int, seed: int
) -> None:
    if extra >= stride or (size - 1) * stride + kernel + extra - 2 * pad < 1:
        return
    generator = np.random.default_rng(seed)
    model = stage_of(
        f"y = ConvTranspose<kernel_shape=[{kernel},{kernel}], strides=[{stride},{stride}], "
        f"pads=[{pad},{pad},{pad},{pad}], dilations=[1,1], "
        f"output_padding=[{extra},{extra}]>(x, W, B)",
        f"float[1,3,{size},{size + 1}] x",
        "y",
        {
            "W": generator.standard_normal((3, 5, kernel, kernel)).astype(np.float32),
            "B": generator.standard_normal(5).astype(np.float32),
        },
    )
    assert_float_parity(model, tolerance=1e-5)
    assert_int8_parity(model)


@pytest.mark.parametrize("bound", ["Relu(c)", "Clip(c, lo, hi)"])
def test_activation_behind_a_transposed_convolution(bound: str) -> None:
    generator = np.random.default_rng(1)
    model = stage_of(
        f"c = ConvTranspose<kernel_shape=[2,2], strides=[2,2], pads=[0,0,0,0]>(x, W) y = {bound}",
        "float[1,3,4,4] x",
        "y",
        {
            "W": generator.standard_normal((3, 5, 2, 2)).astype(np.float32),
            **({"lo": np.float32(-0.5), "hi": np.float32(0.7)} if "lo" in bound else {}),
        },
    )
    assert_float_parity(model)
    assert_int8_parity(model)


def test_what_has_no_lowering_is_refused_with_all_its_company() -> None:
    generator = np.random.default_rng(1)
    model = stage_of(
        "a = ConvTranspose<kernel_shape=[2,2], strides=[2,2], group=2>(x, W) "
        "b = Relu(a) "
        "y = ConvTranspose<kernel_shape=[2,2], dilations=[2,2]>(b, V)",
        "float[1,4,4,4] x",
        "y",
        {
            "W": generator.standard_normal((4, 2, 2, 2)).astype(np.float32),
            "V": generator.standard_normal((4, 2, 2, 2)).astype(np.float32),
        },
    )
    with pytest.raises(UnsupportedOpsError) as caught:
        write(model)
    assert len(caught.value.ops) == 2
    assert "2 groups" in caught.value.ops[0].reason
    assert "dilat" in caught.value.ops[1].reason
    assert caught.value.exit_code == 3


def test_valid_rule_needs_no_pad() -> None:
    assert choose_padding((8, 8), (6, 6), (3, 3), (1, 1), (0, 0, 0, 0)).rule == PADDING_VALID


def test_xnnpack_takes_a_channel_whose_input_calibration_never_saw() -> None:
    """Its weights of 1e6 on what was zero would be refused: 256 steps of output a product."""
    weights = np.array([[1.0, 0.0], [0.0, 1e6]], np.float32).reshape(2, 2, 1, 1)
    stage = stage_of(
        "y = Conv (x, w, b)",
        "float[1,2,4,4] x",
        "y",
        {"w": weights, "b": np.array([0.1, 0.2], np.float32)},
    )
    inputs = random_inputs(stage)
    inputs["x"][:, 1] = 0.0
    assert assert_int8_parity(stage, inputs).is_one_partition
