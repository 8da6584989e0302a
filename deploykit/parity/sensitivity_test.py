"""Sensitivity to rounding: small on a flat network, large on a steep one, never an excuse."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from deploykit.errors import RunnerError
from deploykit.model import Model
from deploykit.parity.compare import ArtifactRun, Expected, verify_run
from deploykit.parity.limits import LARGEST_ROUNDING, Limits, limit_with_rounding
from deploykit.parity.sensitivity import measure_sensitivity, perturbed
from deploykit.parity.stages import run_stage
from deploykit_testing.graphs import as_model, parse


def network(slope: float) -> Model:
    """Six convolutions of 32 channels, and a sigmoid of logits times ``slope``."""
    random = np.random.default_rng(0)
    lines, weights, source, read = [], [], "x", 3
    for index in range(6):
        weights.append(random.normal(size=(32, read, 3, 3)) * np.sqrt(2 / (9 * read)))
        lines.append(f"c{index} = Conv<pads = [1, 1, 1, 1]>({source}, w{index})")
        lines.append(f"r{index} = Relu(c{index})")
        source, read = f"r{index}", 32
    weights.append(random.normal(size=(1, 32, 1, 1)) * slope)
    lines.append(f"l = Conv({source}, w6)  y = Sigmoid(l)")
    shapes = ", ".join(f"float[{','.join(map(str, w.shape))}] w{i}" for i, w in enumerate(weights))
    text = f"g (float[1,3,16,16] x, {shapes}) => (float[1,1,16,16] y) {{ {'  '.join(lines)} }}"
    graph = parse(text)
    for index, array in enumerate(weights):
        value = next(v for v in graph.graph.inputs if v.name == f"w{index}")
        graph.graph.inputs.remove(value)
        value.const_value = ir.Tensor(array.astype(np.float32), name=value.name)
        graph.graph.register_initializer(value)
    return as_model(graph)


def inputs() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).normal(size=(4, 3, 16, 16)).astype(np.float32)}


def test_a_steep_network_is_more_sensitive_than_a_flat_one() -> None:
    found = {}
    for slope in (0.1, 40.0):
        stage = network(slope)
        outputs = run_stage(stage, inputs())
        found[slope] = measure_sensitivity(stage, inputs(), outputs)["y"]
    assert 0 < found[0.1] < 2e-6
    assert found[40.0] > 10 * found[0.1]


def test_weights_move_by_one_unit_in_the_last_place() -> None:
    stage = network(1.0)
    moved = perturbed(stage, 0).graph.graph.initializers
    for name, value in stage.graph.graph.initializers.items():
        before, after = value.const_value.numpy(), moved[name].const_value.numpy()
        steps = np.abs(before.view(np.int32) - after.view(np.int32))
        assert steps.max() <= 2
        assert (steps > 0).mean() > 0.9


def test_the_limit_follows_and_ends_before_a_thousandth() -> None:
    name = "max_error_over_range"
    default = Limits().fp32.max_error_over_range
    assert default is not None
    assert limit_with_rounding(default, name, 0.0) == default
    assert limit_with_rounding(default, name, 2e-5) == pytest.approx(1.6e-4)
    assert limit_with_rounding(default, name, 1.0) == LARGEST_ROUNDING < 1e-3
    assert limit_with_rounding(1e-6, name, 1.0) == 1e-6, "the user's own limit stays"


@pytest.mark.parametrize("fault", ["weight", "bias", "pad"])
def test_a_planted_fault_fails_on_the_steepest_network(fault: str) -> None:
    stage = network(40.0)
    outputs = run_stage(stage, inputs())
    sensitivity = measure_sensitivity(stage, inputs(), outputs)
    broken = stage.graph.clone()
    if fault == "weight":
        value = broken.graph.initializers["w2"]
        array = value.const_value.numpy().copy()
        array[5] *= 1.01
        value.const_value = ir.Tensor(array, name="w2")
    elif fault == "bias":
        node = next(n for n in broken.graph if n.op_type == "Conv" and n.outputs[0].name == "c3")
        bias = np.zeros(32, np.float32)
        bias[3] = 0.01
        value = ir.Value(name="b", const_value=ir.Tensor(bias, name="b"))
        broken.graph.register_initializer(value)
        node.resize_inputs(3)
        node.replace_input_with(2, value)
    else:
        node = next(n for n in broken.graph if n.op_type == "Conv")
        node.attributes["pads"] = ir.AttrInt64s("pads", [0, 1, 2, 1])
    actual = run_stage(stage.advanced(broken, stage.stage, ()), inputs())
    verdict = verify_run(
        ArtifactRun("onnxruntime", None, actual, 4),
        Expected(outputs, outputs, sensitivity=sensitivity),
        file="f",
        target="onnx",
        precision="fp32",
        output_specs=stage.outputs,
    )
    assert not verdict.passed


def test_a_stage_that_does_not_run_is_told() -> None:
    stage = network(1.0)
    broken = stage.graph.clone()
    next(iter(broken.graph)).attributes["pads"] = ir.AttrInt64s("pads", [1, 1])
    with pytest.raises(RunnerError):
        measure_sensitivity(stage.advanced(broken, stage.stage, ()), inputs(), {})
