"""A file in words, and damaged files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploykit.errors import SourceError
from deploykit.model import Precision
from deploykit_testing.tflite import quantized, random_inputs, stage_of, write
from deploykit_tflite import TARGET
from deploykit_tflite.inspect_file import read_model


def data_of(precision: Precision) -> bytes:
    model = stage_of(
        "c = Conv<kernel_shape=[3,3], strides=[1,1], pads=[1,1,1,1], dilations=[1,1], group=1>"
        "(x, W) y = Relu(c)",
        "float[1,3,6,6] x",
        "y",
        {"W": np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)},
    )
    if precision is Precision.INT8:
        model = quantized(model, random_inputs(model))
    return write(model, precision).artifact.data


FLOATS, INTEGERS = data_of(Precision.FP32), data_of(Precision.INT8)


def test_float_file(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(FLOATS)
    text = TARGET.inspect(path)
    assert "description: tiny, fp32, written by deploykit" in text
    assert "minimum runtime: 1.5.0" in text
    assert "XNNPACK: 1 partition, 1 of 1 operators (LiteRT " in text
    assert "input  x: float32 1x6x6x3" in text
    assert "output y: float32 1x6x6x4" in text
    assert "1 operators: CONV_2D 1" in text
    assert "RELU" in text


def test_int8_file(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(INTEGERS)
    text = TARGET.inspect(path)
    assert "versions: CONV_2D 3" in text
    assert "int8 4x3x3x3 4 scales " in text
    assert "on axis 0" in text
    assert "zero -128" in text
    assert "computed types: 1 int8" in text


@pytest.mark.parametrize(
    "data", [b"", b"TFL3", b"hello, this is text", FLOATS[:200], b"\x1c\0\0\0TFL3"]
)
def test_no_tflite_file(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(data)
    with pytest.raises(SourceError):
        TARGET.inspect(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot read"):
        TARGET.inspect(tmp_path / "missing.tflite")


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.integers(8, len(FLOATS) - 1), value=st.integers(0, 255), cut=st.booleans())
def test_damage_never_escapes(tmp_path: Path, place: int, value: int, cut: bool) -> None:
    data = bytearray(FLOATS)
    data[place] = value
    path = tmp_path / "damaged.tflite"
    path.write_bytes(bytes(data[:place] if cut else data))
    try:
        read_model(path)
    except SourceError as error:
        assert "damaged" in str(error) or "no TFLite" in str(error)  # noqa: PT017
