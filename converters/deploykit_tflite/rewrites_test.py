"""The rewrites before quantization: same numbers, same names, and only ops that may stay."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.model import Model, Stage
from deploykit_testing.tflite import random_inputs, run_onnxruntime, stage_of
from deploykit_tflite.policy import STATIC_INT8
from deploykit_tflite.rewrite_hard_sigmoid import RewriteHardSigmoid
from deploykit_tflite.rewrite_hard_swish import RewriteHardSwish
from deploykit_tflite.rewrite_silu import RewriteSilu


def rewritten(model: Model, *passes) -> tuple[Model, list]:
    graph = model.graph.clone()
    results = [one.apply(graph) for one in passes]
    return model.advanced(graph, Stage.FUSED, ()), results


def ops(model: Model) -> list[str]:
    return [node.op_type for node in model.graph.graph]


def assert_same(model: Model, other: Model, **limits: float) -> None:
    inputs = random_inputs(model, low=-8, high=8)
    expected, found = run_onnxruntime(model, inputs), run_onnxruntime(other, inputs)
    assert set(expected) == set(found)
    for name, want in expected.items():
        np.testing.assert_allclose(found[name], want, atol=limits.get("atol", 2e-6))


def test_hard_swish() -> None:
    model = stage_of("a = HardSwish(x) y = HardSwish(a)", "float[1,3,4,4] x", "y, a")
    other, (result,) = rewritten(model, RewriteHardSwish())
    assert ops(other) == ["Mul", "Add", "Clip", "Mul"] * 2
    assert result.changed
    assert len(result.notes) == 2
    assert_same(model, other, atol=5e-6)


def test_silu() -> None:
    model = stage_of("y = deploykit.Silu(x)", "float[1,3,4,4] x", "y")
    other, (result,) = rewritten(model, RewriteSilu())
    assert ops(other) == ["Sigmoid", "Mul"]
    assert result.changed
    assert_same(model, other)


def behind(
    layer: str, alpha: float, more: str = "", outputs: str = "y", bias: bool = True
) -> Model:
    generator = np.random.default_rng(0)
    attributes = {
        "Conv": "kernel_shape=[1,1], strides=[1,1], pads=[0,0,0,0], dilations=[1,1], group=1",
        "Gemm": "transB=1",
    }[layer]
    shape = (4, 3, 1, 1) if layer == "Conv" else (4, 3)
    constants = {"W": generator.standard_normal(shape).astype(np.float32)}
    if bias:
        constants["B"] = generator.standard_normal(4).astype(np.float32)
    return stage_of(
        f"c = {layer}<{attributes}>(x, W{', B' if bias else ''}) "
        f"y = HardSigmoid<alpha={alpha}, beta=0.5>(c) {more}",
        "float[1,3,4,4] x" if layer == "Conv" else "float[1,3] x",
        outputs,
        constants,
    )


@pytest.mark.parametrize("layer", ["Conv", "Gemm"])
@pytest.mark.parametrize("alpha", [0.16666667, 0.2])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("form", "tail"), [("saturation", ["Clip"]), ("relu6", ["Clip", "Mul"])])
def test_hard_sigmoid_folds_into_its_layer(layer, alpha, bias, form, tail) -> None:
    model = behind(layer, alpha, bias=bias)
    other, (result,) = rewritten(model, RewriteHardSigmoid(form=form))
    assert ops(other) == [layer, *tail]
    assert result.changed
    assert_same(model, other)
    names = {v.name for node in other.graph.graph for v in node.outputs}
    assert "y" in names
    assert "c" not in names  # the layer now gives something else


def test_weights_stay_as_they_are_where_six_alpha_is_one() -> None:
    model = behind("Conv", 0.16666667)
    other, _ = rewritten(model, RewriteHardSigmoid(form="relu6"))
    conv = next(iter(other.graph.graph))
    assert conv.inputs[1].name == "W"


def test_a_shared_layer_is_left_alone() -> None:
    model = behind("Conv", 0.16666667, more="z = Relu(c)", outputs="y, z")
    other, (result,) = rewritten(model, RewriteHardSigmoid(form="relu6"))
    assert ops(other) == ["Conv", "HardSigmoid", "Relu"]
    assert not result.changed
    assert "other readers" in result.notes[0].reason
    other, (result,) = rewritten(model, RewriteHardSigmoid(form="saturation"))
    assert ops(other) == ["Conv", "Mul", "Add", "Clip", "Relu"]
    assert_same(model, other)


def test_shared_weights_are_not_changed_for_the_other_layer() -> None:
    model = behind("Gemm", 0.2, more="z = Gemm<transB=1>(x, W, B)", outputs="y, z")
    other, _ = rewritten(model, RewriteHardSigmoid(form="saturation"))
    assert_same(model, other)


def test_the_policy_leaves_no_op_that_int8_delegates_refuse() -> None:
    body = "a = HardSwish(x) b = HardSigmoid<alpha=0.2, beta=0.5>(a) y = deploykit.Silu(b)"
    model = stage_of(body, "float[1,3,4,4] x", "y")
    other, _ = rewritten(model, *STATIC_INT8.rewrites)
    assert set(ops(other)) <= STATIC_INT8.quantized_ops
    assert_same(model, other, atol=1e-5)


def test_scale_classes_do_not_overlap() -> None:
    assert not STATIC_INT8.same_scale_ops & STATIC_INT8.joined_scale_ops
    assert not set(STATIC_INT8.fixed_outputs) & STATIC_INT8.same_scale_ops
    assert STATIC_INT8.same_scale_ops | STATIC_INT8.joined_scale_ops <= STATIC_INT8.quantized_ops
