"""A factor left to the weights behind: the same numbers, fewer ops, ranges that follow."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.graph.reading import constant_array
from deploykit.graph.value_multiple import multiple_of
from deploykit.model import Model, Precision, Stage
from deploykit_testing.tflite import (
    assert_float_parity,
    quantized,
    random_inputs,
    run_onnxruntime,
    stage_of,
    write,
)
from deploykit_tflite.rewrite_hard_swish import RewriteHardSwish

_POINTWISE = "kernel_shape=[1,1], strides=[1,1], pads=[0,0,0,0], dilations=[1,1], group=1"
_DEPTHWISE = "kernel_shape=[3,3], strides=[1,1], pads=[1,1,1,1], dilations=[1,1], group=4"

#: A MobileNetV3 block: HardSwish, depthwise, HardSwish, squeeze-and-excite, pointwise.
_BLOCK = f"""
    a = HardSwish(x)
    b = Conv<{_DEPTHWISE}>(a, D, E)
    c = HardSwish(b)
    m = ReduceMean<keepdims=1>(c, hw)
    s = Conv<{_POINTWISE}>(m, S, T)
    r = Relu(s)
    u = Conv<{_POINTWISE}>(r, U, V)
    g = HardSigmoid<alpha=0.16666667, beta=0.5>(u)
    p = Mul(c, g)
    y = Conv<{_POINTWISE}>(p, P, Q)
"""

_SQUARE = f"""
    h = HardSwish(x)
    k = Relu(h)
    l = Relu(k)
    z = Mul(h, l)
    y = Conv<{_POINTWISE}>(z, P, Q)
"""


def _constants() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {
        "D": (4, 1, 3, 3),
        "E": (4,),
        "S": (2, 4, 1, 1),
        "T": (2,),
        "U": (4, 2, 1, 1),
        "V": (4,),
        "P": (3, 4, 1, 1),
        "Q": (3,),
        "G": (3, 4),
        "H": (3,),
    }
    drawn = {k: generator.standard_normal(s).astype(np.float32) for k, s in shapes.items()}
    return {**drawn, "hw": np.array([2, 3], np.int64)}


def _stage(text: str, outputs: str = "y") -> Model:
    used = {k: v for k, v in _constants().items() if any(f"{k}{end}" in text for end in (",", ")"))}
    return stage_of(text, "float[1,4,6,6] x", outputs, used)


def _rewritten(model: Model) -> tuple[Model, list[str]]:
    graph = model.graph.clone()
    result = RewriteHardSwish().apply(graph)
    return model.advanced(graph, Stage.FUSED, ()), [note.reason for note in result.notes]


def _ops(model: Model) -> list[str]:
    return [node.op_type for node in model.graph.graph]


@pytest.mark.parametrize(
    "text",
    [
        _BLOCK,
        "h = HardSwish(x) z = ReduceMean<keepdims=0>(h, hw) y = Gemm<transB=1>(z, G, H)",
        f"h = HardSwish(x) z = MaxPool<kernel_shape=[2,2]>(h) y = Conv<{_POINTWISE}>(z, P)",
        f"a = HardSwish(x) b = Mul(x, a) y = Conv<{_POINTWISE}>(b, P, Q)",
    ],
)
def test_the_sixth_of_hard_swish_goes_into_the_weights(text: str) -> None:
    model = _stage(text)
    other, reasons = _rewritten(model)
    inputs = random_inputs(model, low=-8, high=8)
    want, found = run_onnxruntime(model, inputs)["y"], run_onnxruntime(other, inputs)["y"]
    np.testing.assert_allclose(found, want, atol=2e-6 * np.abs(want).max())
    assert all("in the weights" in reason for reason in reasons)
    assert "HardSwish" not in _ops(other)
    made = {v for node in other.graph.graph for v in node.outputs}
    sixfold = {multiple_of(v)[0] for v in made if multiple_of(v)[1] != 1.0}
    names = {v.name for node in model.graph.graph for v in node.outputs}
    assert sixfold <= names
    assert not sixfold & {v.name for v in made}, "a multiple bears the name of what it is not"
    assert _ops(other).count("Mul") == text.count("Mul(") + text.count("HardSwish")


def test_notes_hold_the_factor_of_what_is_held() -> None:
    model = _stage(_BLOCK)
    other, _ = _rewritten(model)
    inputs = random_inputs(model, low=-8, high=8)
    before = run_onnxruntime(model, inputs, everything=True)
    after = run_onnxruntime(other, inputs, everything=True)
    noted = 0
    for node in other.graph.graph:
        for value in node.outputs:
            source, factor = multiple_of(value)
            if factor != 1.0:
                noted += 1
                np.testing.assert_allclose(
                    after[value.name or ""], factor * before[source], rtol=1e-5, atol=1e-5
                )
    assert noted == 4  # two HardSwish, the mean and the product behind the second


@pytest.mark.parametrize(
    ("text", "outputs", "why"),
    [
        ("h = HardSwish(x) y = Add(x, h)", "y", "Add reads"),
        (f"h = HardSwish(x) y = Conv<{_POINTWISE}>(h, P, Q)", "y, h", "output of the graph"),
        (f"h = HardSwish(x) z = Mul(h, h) y = Conv<{_POINTWISE}>(z, P, Q)", "y", "Mul reads"),
        (_SQUARE, "y", "Mul reads"),
        ("h = HardSwish(x) y = deploykit.Silu(h)", "y", "Silu reads"),
    ],
)
def test_reasons(text: str, outputs: str, why: str) -> None:
    model = _stage(text, outputs)
    other, reasons = _rewritten(model)
    assert why in " ".join(reasons)
    inputs = random_inputs(model, low=-8, high=8)
    expected, found = run_onnxruntime(model, inputs), run_onnxruntime(other, inputs)
    for name, want in expected.items():
        np.testing.assert_allclose(found[name], want, atol=4e-6 * np.abs(want).max())


def test_two_factors_in_one_layer() -> None:
    """A product of two multiples holds both factors; the weights take both."""
    model = stage_of(
        f"a = HardSwish(x) c = Conv<{_POINTWISE}>(x, W) b = HardSwish(c) "
        f"z = Mul(a, b) y = Conv<{_POINTWISE}>(z, P)",
        "float[1,4,6,6] x",
        "y",
        {"W": np.eye(4, dtype=np.float32)[:, ::-1, None, None].copy(), "P": _constants()["P"]},
    )
    other, reasons = _rewritten(model)
    assert all("in the weights" in reason for reason in reasons)
    inputs = random_inputs(model, low=-8, high=8)
    want, found = run_onnxruntime(model, inputs)["y"], run_onnxruntime(other, inputs)["y"]
    np.testing.assert_allclose(found, want, atol=4e-6 * np.abs(want).max())


def test_in_int8_only_scales_change() -> None:
    """The weights' integers are those of the unscaled weights; one MUL a HardSwish."""
    model = _stage(_BLOCK)
    inputs = random_inputs(model, low=-4, high=4)
    stage = quantized(model, inputs)
    integers = {
        v.name: a
        for v in stage.graph.graph.initializers.values()
        if (a := constant_array(v)) is not None and a.dtype == np.int8 and a.ndim == 4
    }
    for name in ("D", "S", "P"):
        weights = _constants()[name]
        axes = tuple(range(1, weights.ndim))
        steps = np.abs(weights).max(axis=axes, keepdims=True) / 127
        (found,) = [a for key, a in integers.items() if key.split(".")[0].split("_")[0] == name]
        assert np.array_equal(found, np.rint(weights / steps).astype(np.int8))
    written = write(stage, Precision.INT8)
    assert written.ops.count("MUL") == 3
    assert written.ops.count("ADD") == 2
    assert written.is_one_partition
    wanted = run_onnxruntime(stage, inputs)["y"]
    params = written.artifact.outputs[0].quantization
    assert params is not None
    for kernels in ("reference", "xnnpack"):
        steps_off = np.abs(written.run(inputs, kernels)["y"] - wanted) / params.scale[0]
        assert steps_off.max() <= 1.001


def test_squeeze_and_excite_in_float_ends_without_a_factor() -> None:
    """Its gate is relu6 of a convolution and its sixth is in the weights: no MUL of its own."""
    written = assert_float_parity(_stage(_BLOCK), tolerance=5e-6)
    assert written.ops.count("MUL") == 1
    assert written.ops.count("HARD_SWISH") == 2
    assert written.is_one_partition
