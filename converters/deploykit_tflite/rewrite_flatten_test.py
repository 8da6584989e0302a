"""A mean that is flattened at once: no RESHAPE is left."""

from __future__ import annotations

import numpy as np

from deploykit_testing.tflite import (
    assert_float_parity,
    assert_int8_parity,
    stage_of,
    write,
)

_CONSTANTS = {"hw": np.array([2, 3]), "s": np.array([1, 4])}


def test_no_reshape() -> None:
    model = stage_of(
        "m = ReduceMean<keepdims=1>(x, hw) y = Reshape(m, s)", "float[1,4,5,5] x", "y", _CONSTANTS
    )
    written = assert_float_parity(model)
    assert written.ops == ["MEAN"]
    assert assert_int8_parity(model).ops == ["MEAN"]
    assert "y" in written.artifact.value_names


def test_a_mean_with_another_reader_keeps_its_axes() -> None:
    model = stage_of(
        "m = ReduceMean<keepdims=1>(x, hw) y = Reshape(m, s) z = Mul(x, m)",
        "float[1,4,5,5] x",
        "y, z",
        _CONSTANTS,
    )
    assert assert_float_parity(model).ops == ["MEAN", "RESHAPE", "MUL"]


def test_a_reshape_to_other_axes_stays() -> None:
    constants = _CONSTANTS | {"s": np.array([2, 2])}
    model = stage_of(
        "m = ReduceMean<keepdims=1>(x, hw) y = Reshape(m, s)", "float[1,4,5,5] x", "y", constants
    )
    assert write(model).ops == ["MEAN", "RESHAPE"]
