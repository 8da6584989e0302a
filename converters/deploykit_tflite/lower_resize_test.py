"""Resize: the flags sample what ONNX's rule samples, or the node is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deploykit.errors import UnsupportedOpsError
from deploykit_testing.tflite import (
    assert_float_parity,
    assert_int8_parity,
    stage_of,
    write,
)

RULES = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]


@settings(max_examples=60, deadline=None)
@example("nearest", "half_pixel", "floor", (1, 7), (1, 1))  # 3 in reals, 2 in ONNX Runtime's floats
@given(
    mode=st.sampled_from(["linear", "nearest"]),
    rule=st.sampled_from(RULES),
    rounding=st.sampled_from(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]),
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    output=st.tuples(st.integers(1, 15), st.integers(1, 15)),
)
def test_any_resize_is_right_or_refused(
    mode: str, rule: str, rounding: str, size: tuple[int, int], output: tuple[int, int]
) -> None:
    model = stage_of(
        f'y = Resize<mode="{mode}", coordinate_transformation_mode="{rule}", '
        f'nearest_mode="{rounding}">(x,,,z)',
        f"float[1,3,{size[0]},{size[1]}] x",
        "y",
        {"z": np.array([1, 3, *output], np.int64)},
    )
    refusal = ""
    try:
        write(model)
    except UnsupportedOpsError as error:
        refusal = str(error)
    if refusal:
        assert "no flags" in refusal
    else:
        # Coordinates are float32 in one and the other: an interpolated value differs by that.
        assert_float_parity(model, tolerance=1e-4 if mode == "linear" else 0)


@pytest.mark.parametrize(
    ("mode", "rule", "rounding"),
    [
        ("linear", "half_pixel", "floor"),
        ("linear", "align_corners", "floor"),
        ("linear", "asymmetric", "floor"),
        ("nearest", "asymmetric", "floor"),
        ("nearest", "half_pixel", "round_prefer_floor"),
    ],
)
@pytest.mark.parametrize("factor", [2, 3])
def test_usual_upsampling_is_supported(mode: str, rule: str, rounding: str, factor: int) -> None:
    model = stage_of(
        f'y = Resize<mode="{mode}", coordinate_transformation_mode="{rule}", '
        f'nearest_mode="{rounding}">(x,,,z)',
        "float[1,3,6,5] x",
        "y",
        {"z": np.array([1, 3, 6 * factor, 5 * factor], np.int64)},
    )
    written = assert_float_parity(model, tolerance=1e-5)
    name = "RESIZE_BILINEAR" if mode == "linear" else "RESIZE_NEAREST_NEIGHBOR"
    assert written.ops == [name]
    # The reference kernel of the bilinear op cuts off where others round.
    assert assert_int8_parity(model, steps=2.0 if mode == "linear" else 0.0).ops == [name]


def test_cubic_is_refused() -> None:
    model = stage_of(
        'y = Resize<mode="cubic">(x,,,z)',
        "float[1,3,6,5] x",
        "y",
        {"z": np.array([1, 3, 12, 10], np.int64)},
    )
    with pytest.raises(UnsupportedOpsError, match="cubic"):
        assert_float_parity(model)
