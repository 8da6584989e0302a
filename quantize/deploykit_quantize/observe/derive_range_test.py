from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.errors import DataError
from deploykit_quantize.observe.derive_range import Range, derive_range
from deploykit_testing.graphs import parse
from deploykit_testing.quantized import run_values

NODES = [
    "y = Add (a, b)",
    "y = Sub (a, b)",
    "y = Mul (a, b)",
    "y = Mul (a, k)",
    "y = Sub (k, a)",
    "y = Div (a, k)",
    "y = Max (a, b)",
    "y = Min (a, b)",
    "y = Relu (a)",
    "y = Clip (a, low, high)",
    "y = Sigmoid (a)",
    "y = Tanh (a)",
    "y = Neg (a)",
    "y = HardSigmoid <alpha = 0.2, beta = 0.5> (a)",
    "y = Softmax <axis = 1> (a)",
    "y = Concat <axis = 1> (a, b)",
    "y = Pad (a, pads, high)",
    "y = Pad (a, pads)",
    "y = Transpose <perm = [0, 1, 3, 2]> (a)",
    "y = AveragePool <kernel_shape = [2, 2]> (a)",
]


def network(node: str) -> ir.Model:
    return parse(
        f"""agraph (float[1, 1, 2, 2] a, float[1, 1, 2, 2] b) => (float y)
            <float k = {{-2.5}}, float low = {{-1.0}}, float high = {{3.0}},
             int64[8] pads = {{0, 0, 1, 1, 0, 0, 1, 1}}> {{ {node} }}"""
    )


def ranges_of(feeds: dict[str, np.ndarray]) -> dict[str, Range]:
    return {name: (float(data.min()), float(data.max())) for name, data in feeds.items()}


@pytest.mark.parametrize("node", NODES)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), shift=st.floats(-5, 5))
def test_every_result_lies_in_the_range(node: str, seed: int, shift: float) -> None:
    graph = network(node).graph
    rng = np.random.default_rng(seed)
    feeds = {
        name: (rng.standard_normal((1, 1, 2, 2)) * 3 + shift).astype(np.float32)
        for name in ("a", "b")
    }
    known = ranges_of(feeds)
    low, high = derive_range(graph.outputs[0], lambda value: known[value.name or ""])
    model = network(node)
    used = {v.name for v in model.graph.inputs if v.uses()}
    for value in list(model.graph.inputs):
        if value.name not in used:
            model.graph.inputs.remove(value)
    result = run_values(model, {name: data for name, data in feeds.items() if name in used})["y"]
    assert low - 1e-4 <= result.min()
    assert result.max() <= high + 1e-4


def test_ranges_are_as_narrow_as_their_operands_allow() -> None:
    def derived(node: str, a: Range, b: Range = (0.0, 1.0)) -> Range:
        known = {"a": a, "b": b}
        return derive_range(network(node).graph.outputs[0], lambda v: known[v.name or ""])

    assert derived("y = Mul (a, b)", (-3, 2), (-1, 4)) == (-12, 8)
    assert derived("y = Add (a, k)", (-3, 2)) == (-5.5, -0.5)
    assert derived("y = Clip (a, low, high)", (-3, 2)) == (-1, 2)
    assert derived("y = Clip (a, low, high)", (4, 5)) == (3, 3)
    assert derived("y = Pad (a, pads)", (1, 2)) == (0, 2)
    assert derived("y = Div (a, k)", (0, 5)) == (-2, 0)


def test_what_has_no_rule_is_refused() -> None:
    with pytest.raises(DataError, match=r"no range is known for 'y' \(Pow\)"):
        derive_range(network("y = Pow (a, b)").graph.outputs[0], lambda _: (0.0, 1.0))
    with pytest.raises(DataError, match=r"no range is known for 'y' \(Div\)"):
        derive_range(network("y = Div (a, b)").graph.outputs[0], lambda _: (-1.0, 1.0))
