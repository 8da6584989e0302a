"""Which layers are kept from float16 arithmetic, what is reported, and that no value changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deploykit.model import Model, Precision
from deploykit_ncnn.inspect_files import inspect_files
from deploykit_testing.ncnn import (
    Written,
    normal,
    quantized,
    random_inputs,
    run_onnxruntime,
    stage_of,
    write,
)


def depthwise(
    *, channels: int = 16, made: int = 16, width: int = 28, kernel: int = 3, stride: int = 2
) -> Model:
    """Stride 2 and pads of (kernel - 1) / 2: the output is half as wide, rounded up."""
    pad = kernel // 2
    body = (
        f"y = Conv<kernel_shape=[{kernel},{kernel}], pads=[{pad},{pad},{pad},{pad}], "
        f"strides=[{stride},{stride}], group={channels}>(x, W)"
    )
    weights = normal(made, 1, kernel, kernel)
    return stage_of(body, f"float[1,{channels},8,{width}] x", "y", {"W": weights})


def masks(written: Written) -> list[object]:
    return [layer.params.get(31) for layer in written.layers if layer.type.startswith("Conv")]


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
@pytest.mark.parametrize("width", range(5, 34))
def test_the_widths_that_end_in_a_tail_of_two(
    width: int, precision: Precision, tmp_path: Path
) -> None:
    written = write(tmp_path, depthwise(width=width), precision)
    made = (width + 1) // 2
    assert masks(written) == [1 if made % 4 in (2, 3) else None]


@pytest.mark.parametrize(
    "form",
    [
        {"channels": 12, "made": 12},  # packed by four
        {"kernel": 5},
        {"stride": 1, "width": 14},
        {"made": 32},  # not depthwise: two outputs a channel
    ],
)
def test_other_layers_are_left_alone(form: dict[str, int], tmp_path: Path) -> None:
    assert masks(write(tmp_path, depthwise(**form), Precision.FP32)) == [None]


def test_the_summary_says_how_many_and_why(tmp_path: Path) -> None:
    written = write(tmp_path, depthwise(), Precision.FP32)
    said = written.artifact.summary["no_fp16_arithmetic"]
    assert said["layers"] == 1
    assert "convdw3x3s2_pack8_fp16sa" in said["reason"]
    assert "no float16 arithmetic" in inspect_files(written.path)


def test_the_option_leaves_it_out(tmp_path: Path) -> None:
    written = write(tmp_path, depthwise(), Precision.FP32, fp16_workaround="no")
    assert masks(written) == [None]
    assert "no_fp16_arithmetic" not in written.artifact.summary


def test_a_layer_in_integers_needs_none(tmp_path: Path) -> None:
    body = (
        "c = Conv<kernel_shape=[1,1]>(x, V) "
        "y = Conv<kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2], group=16>(c, W)"
    )
    constants = {"V": normal(16, 3, 1, 1), "W": normal(16, 1, 3, 3, seed=1)}
    model = stage_of(body, "float[1,3,8,28] x", "y", constants)
    stage = quantized(model, random_inputs(model), depthwise="int8")
    assert masks(write(tmp_path, stage, Precision.INT8, depthwise="int8")) == [None, None]
    floats = quantized(model, random_inputs(model))
    assert masks(write(tmp_path, floats, Precision.INT8)) == [None, 1]


def test_no_number_changes_here(tmp_path: Path) -> None:
    model = depthwise()
    inputs = random_inputs(model)
    found = write(tmp_path, model, Precision.FP32).run(inputs)["y"]
    np.testing.assert_allclose(found, run_onnxruntime(model, inputs)["y"], rtol=1e-5, atol=1e-5)
