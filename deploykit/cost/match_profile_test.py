from __future__ import annotations

from deploykit.cost.count import count_graph
from deploykit.cost.layer import ElementSizes, ProfiledOp, ProfiledRun
from deploykit.cost.match_profile import match_profile
from deploykit_testing.static_graphs import parse_static

TEXT = """g (float[1, 8, 4, 4] x, float[8, 8, 1, 1] W) => (float[1, 8, 4, 4] y) {
    a = Conv (x, W)
    b = Sigmoid (a)
    y = Conv (b, W) }"""


def _match(*names: str) -> dict[str, float]:
    layers = count_graph(parse_static(TEXT), "test", ElementSizes(), absorb=True).layers
    ops = tuple(ProfiledOp(name, float(index)) for index, name in enumerate(names))
    return match_profile(layers, ProfiledRun("runtime", 1, ops))


def test_lists_that_fit_are_one() -> None:
    found = _match("Fully Connected (NC, F32) GEMM", "Sigmoid (ND)", "Convolution (NHWC, F32) GEMM")
    assert found == {"a": 0.0, "b": 1.0, "y": 2.0}


def test_another_number_or_order_is_not_matched() -> None:
    assert _match("Convolution", "Convolution") == {}
    assert _match("Sigmoid (ND)", "Convolution", "Convolution") == {}
