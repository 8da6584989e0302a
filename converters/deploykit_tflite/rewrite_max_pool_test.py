"""Max pools whose padding is no SAME: no PAD is left, and the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.model import Model, Precision, Stage
from deploykit_testing.tflite import (
    assert_float_parity,
    assert_int8_parity,
    quantized,
    random_inputs,
    run_onnxruntime,
    stage_of,
    write,
)
from deploykit_tflite.rewrite_max_pool import RewriteMaxPool


def stem(
    size: int = 16,
    act: str = "Relu(c)",
    pads: tuple[int, ...] = (1, 1, 1, 1),
    kernel: int = 3,
    stride: int = 2,
    outputs: str = "y",
    more: str = "",
) -> Model:
    generator = np.random.default_rng(0)
    constants = {
        "W": generator.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "B": generator.standard_normal(4).astype(np.float32) + 1,
        "zero": np.float32(0),
        "six": np.float32(6),
    }
    return stage_of(
        "c = Conv<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1], dilations=[1,1], group=1>"
        f"(x, W, B) r = {act} "
        f"y = MaxPool<kernel_shape=[{kernel},{kernel}], strides=[{stride},{stride}], "
        f"pads={list(pads)}>(r) {more}",
        f"float[1,3,{size},{size}] x",
        outputs,
        {k: v for k, v in constants.items() if k in ("W", "B") or k in act},
    )


@pytest.mark.parametrize("act", ["Relu(c)", "Clip(c, zero, six)", "Relu(c) "])
def test_a_stem_needs_no_pad_of_its_map(act: str) -> None:
    written = assert_float_parity(stem(act=act))
    assert written.ops == ["PAD", "CONV_2D", "MAX_POOL_2D", "SLICE"]  # the PAD of the image
    assert written.is_one_partition
    in_int8 = assert_int8_parity(stem(act=act))
    assert in_int8.ops == written.ops
    assert in_int8.is_one_partition


def test_values_that_grew_are_not_compared_with_the_stage() -> None:
    artifact = write(stem()).artifact
    assert set(artifact.value_names) == {"x", "y"}
    stage = quantized(stem(), random_inputs(stem()))  # the quantized stage has grown itself
    names = write(stage, Precision.INT8).artifact.value_names
    assert "r_dequantized" in names


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (stem(outputs="y, z", more="z = Neg(r)"), "2 readers"),
        (stem(act="Neg(c)"), "it follows Neg"),
        (stem(pads=(1, 1, 2, 2)), "last window"),
        (stem(pads=(0, 0, 0, 0)), "need no PAD"),
        (
            stage_of(
                "y = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(x)",
                "float[1,3,8,8] x",
                "y",
            ),
            "does not follow a Conv",
        ),
    ],
)
def test_reasons(model: Model, why: str) -> None:
    graph = model.graph.clone()
    result = RewriteMaxPool().apply(graph)
    assert not result.changed
    assert why in result.notes[0].reason
    assert_float_parity(model)


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(9, 24),
    kernel=st.integers(2, 4),
    stride=st.integers(1, 3),
    before=st.integers(0, 1),
    after=st.integers(0, 1),
)
def test_any_window(size: int, kernel: int, stride: int, before: int, after: int) -> None:
    model = stem(size, pads=(before, before, after, after), kernel=kernel, stride=stride)
    graph = model.graph.clone()
    RewriteMaxPool().apply(graph)
    inputs = random_inputs(model)
    wanted = run_onnxruntime(model, inputs)["y"]
    found = run_onnxruntime(model.advanced(graph, Stage.FUSED, ()), inputs)["y"]
    np.testing.assert_array_equal(found, wanted)
