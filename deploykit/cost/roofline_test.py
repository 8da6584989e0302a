from __future__ import annotations

import pytest

from deploykit.cost.count import count_graph
from deploykit.cost.layer import ElementSizes
from deploykit.cost.roofline import Machine, predict_layer_us, predict_us
from deploykit_testing.static_graphs import parse_static

TEXT = """g (float[1, 64, 8, 8] x, float[64, 64, 1, 1] W) => (float[1, 64, 64] y) {
    shape = Constant <value_ints = [1, 64, 64]> ()
    a = Conv (x, W)
    b = Add (a, x)
    y = Reshape (b, shape) }"""


def test_the_longer_of_arithmetic_and_memory_and_a_start() -> None:
    cost = count_graph(parse_static(TEXT), "test", ElementSizes(), absorb=True)
    machine = Machine(flops_per_us=1000.0, bytes_per_us=500.0, layer_us=2.0)
    conv, add, view = cost.layers
    assert predict_layer_us(conv, machine) == pytest.approx(2 * 64**3 / 1000 + 2)
    assert predict_layer_us(add, machine) == pytest.approx(3 * 4 * 4096 / 500 + 2)
    assert predict_layer_us(view, machine) == 0
    assert predict_layer_us(add, machine, overlap=False) == pytest.approx(
        4096 / 1000 + 3 * 4 * 4096 / 500 + 2
    )
    assert predict_us(cost, machine) == pytest.approx(
        predict_layer_us(conv, machine) + predict_layer_us(add, machine)
    )


def test_what_cannot_be_counted_cannot_be_predicted() -> None:
    text = "g (float[4] x) => (float[4] y) { y = Sin (x) }"
    cost = count_graph(parse_static(text), "test", ElementSizes(), absorb=True)
    with pytest.raises(ValueError, match="Sin has no known cost"):
        predict_us(cost, Machine(1.0, 1.0, 1.0))
