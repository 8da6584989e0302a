"""An app that follows what is said of an input gives the file the right tensor."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.interface import TensorUse, pixel_terms, tensor_uses
from deploykit.preprocess import Preprocess
from deploykit.tensors import QuantParams, TensorSpec

UNIT = st.tuples(*[st.floats(0.05, 0.95)] * 3)


@given(UNIT, UNIT, st.floats(1e-3, 0.1), st.integers(-128, 127))
def test_the_formula_is_the_contract_and_the_quantization(
    mean: tuple[float, ...], std: tuple[float, ...], scale: float, zero_point: int
) -> None:
    contract = Preprocess(size=(16, 16), mean=mean, std=std)
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)[..., None].repeat(3, axis=2)
    tensor = contract.apply(pixels).transpose(1, 2, 0)
    factor, offset = pixel_terms(contract, None)
    assert np.allclose(pixels * np.array(factor) + np.array(offset), tensor, atol=1e-5)
    params = QuantParams((scale,), (zero_point,))
    factor, offset = pixel_terms(contract, params)
    values = np.clip(np.rint(pixels * np.array(factor) + np.array(offset)), -128, 127)
    assert np.abs(values - params.quantize(tensor)).max() <= 1  # a tie falls either way


def test_words_of_inputs_and_outputs() -> None:
    params = QuantParams((0.5,), (-3,))
    specs = [TensorSpec("x", (1, 4, 4, 3), "int8", "NHWC", params)]
    outputs = [TensorSpec("y", (1, 5), tensor="out0")]
    contract = Preprocess(size=(4, 4), mean=(0.5,) * 3, std=(0.5,) * 3)
    uses = list(tensor_uses("n", specs, outputs, preprocess=contract, output_kinds={"y": "logits"}))
    image, scores = (u.describe() for u in uses)
    assert image.startswith("input 'x': int8 NHWC 1x4x4x3, scale 0.5, zero point -3; RGB, ")
    assert image.endswith("value = round(pixel * 0.0156863 + (-5))")
    assert scores == "output 'out0': float32 1x5; logits"
    assert [TensorUse.from_dict(u.to_dict()) for u in uses] == uses
    (pixels, _) = tensor_uses(
        "n", specs, outputs, preprocess=contract, output_kinds={}, pixel_input="x"
    )
    assert "as they are, RGB" in pixels.meaning
    two = list(tensor_uses("n", specs * 2, [], preprocess=contract, output_kinds={}))
    assert [u.meaning for u in two] == ["", ""]  # which of them is the image is not known


@pytest.mark.parametrize("field", ["scale", "shape", "dtype"])
def test_a_damaged_entry_is_refused(field: str) -> None:
    data = TensorUse("n", "input", "x", "int8", (1,), "plain", (0.5,), (0,)).to_dict()
    with pytest.raises(ValueError, match="expected"):
        TensorUse.from_dict(data | {field: [float("nan")]})
