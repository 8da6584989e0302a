from __future__ import annotations

import pytest

from deploykit.errors import UnsupportedModelError
from deploykit.passes.channel_parameters import check_channel_parameters
from deploykit.passes.infer_shapes import InferShapes
from deploykit_testing.graphs import parse

CONV = """g (float[1,3,4,4] x, float[8,3,1,1] W, float[{bias}] B) => (float[1,8,4,4] y) {{
    y = Conv (x, W, B) }}"""
NORM = """g (float[1,3,4,4] x, float[3] s, float[3] b, float[{mean}] m, float[3] v)
    => (float[1,3,4,4] y) {{ y = BatchNormalization (x, s, b, m, v) }}"""
GEMM = """g (float[1,4] x, float[5,4] W, float[{bias}] B) => (float[1,5] y) {{
    y = Gemm <transB = 1> (x, W, B) }}"""


@pytest.mark.parametrize(
    "text",
    [
        *(CONV.format(bias=8), NORM.format(mean=3), GEMM.format(bias=5), GEMM.format(bias=1)),
        GEMM.format(bias="1,5"),
    ],
)
def test_what_fits_is_left_alone(text: str) -> None:
    check_channel_parameters(parse(text).graph)


@pytest.mark.parametrize(
    "text",
    [CONV.format(bias=5), CONV.format(bias="8,1"), NORM.format(mean=1), GEMM.format(bias=4)],
)
def test_what_does_not_fit_is_refused_before_a_kernel_reads_it(text: str) -> None:
    with pytest.raises(UnsupportedModelError, match="has a parameter '[Bm]' of shape"):
        InferShapes().apply(parse(text))
