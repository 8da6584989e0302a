"""Every canonical op on every target in every precision: written, read back, run, compared.

One small network has a branch and an output an op, so that a target and a precision cost one file
and one run. An op that a target refuses has no branch there.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from deploykit.calibration.table import CalibrationTable, ValueStatistics
from deploykit.flow.make import quantize_stage
from deploykit.flow.plan import ConvertRequest
from deploykit.graph.op_facts import CANONICAL_OPS
from deploykit.model import Model, Precision
from deploykit.runners.base import RunnerDefinition
from deploykit.runners.registry import available_runners
from deploykit.target import Artifact, ArtifactRequest, available_targets, find_target, policy_of
from deploykit.tensors import Array
from deploykit_quantize.method import Calibration

pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed (extra [tflite])")

from deploykit_testing.tflite import run_onnxruntime, stage_of

#: Op → the branch that has it; x and p are feature maps, p above zero, v is a vector a sample.
BRANCHES = {
    "Conv": "Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [1, 1], "
    "dilations = [1, 1], group = 1> (x, conv_weight, bias)",
    "ConvTranspose": "ConvTranspose <kernel_shape = [2, 2], pads = [0, 0, 0, 0], strides = [2, 2], "
    "dilations = [1, 1], output_padding = [0, 0], group = 1> (x, transposed_weight, bias)",
    "Gemm": "Gemm <alpha = 1.0, beta = 1.0, transA = 0, transB = 1> (v, linear_weight, bias)",
    "MatMul": "MatMul (x, p)",
    "Add": "Add (x, p)",
    "Sub": "Sub (x, p)",
    "Mul": "Mul (x, p)",
    "Div": "Div (x, p)",
    "Max": "Max (x, p)",
    "Min": "Min (x, p)",
    "Pow": "Pow (p, exponent)",
    "Clip": "Clip (x, low, high)",
    "LeakyRelu": "LeakyRelu <alpha = 0.1> (x)",
    "PRelu": "PRelu (x, slope)",
    "Elu": "Elu <alpha = 1.0> (x)",
    "HardSigmoid": "HardSigmoid <alpha = 0.16666667, beta = 0.5> (x)",
    "Gelu": 'Gelu <approximate = "none"> (x)',
    "Softmax": "Softmax <axis = 1> (v)",
    "Sqrt": "Sqrt (p)",
    "MaxPool": "MaxPool <kernel_shape = [2, 2], strides = [2, 2], pads = [0, 0, 0, 0]> (x)",
    "AveragePool": "AveragePool <kernel_shape = [2, 2], strides = [2, 2], pads = [0, 0, 0, 0], "
    "count_include_pad = 0> (x)",
    "ReduceMean": "ReduceMean <keepdims = 1> (x, pixels)",
    "ReduceMax": "ReduceMax <keepdims = 1> (x, pixels)",
    "ReduceSum": "ReduceSum <keepdims = 1> (x, pixels)",
    "Concat": "Concat <axis = 1> (x, p)",
    "Slice": "Slice (x, starts, ends, pixels, steps)",
    "Reshape": "Reshape (x, flat)",
    "Transpose": "Transpose <perm = [0, 1, 3, 2]> (x)",
    "Pad": "Pad (x, pads, zero)",
    "Resize": 'Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", '
    'nearest_mode = "floor"> (x, , , sizes)',
    "Gather": "Gather <axis = 1> (x, indices)",
    "Expand": "Expand (column, wide)",
    "Silu": "deploykit.Silu (x)",
    "ChannelShuffle": "deploykit.ChannelShuffle <groups = 2> (x)",
}
#: Ops with two results, and those that need a value of another shape first.
WRITTEN_OUT = {
    "Split": "{y}, {y}_rest = Split <axis = 1> (x, halves)",
    "ConcatShuffleSplit": "{y}, {y}_rest = deploykit.ConcatShuffleSplit <groups = 2> (x, p)",
    "Expand": "column = ReduceMax <keepdims = 1> (x, last) {y} = Expand (column, wide)",
}


def _weights(*shape: int) -> Array:
    numbers = np.random.default_rng(len(shape)).standard_normal(shape)
    return (numbers / np.sqrt(numbers[0].size)).astype(np.float32)


CONSTANTS: dict[str, Array] = {
    "conv_weight": _weights(8, 8, 3, 3),
    "transposed_weight": _weights(8, 8, 2, 2),
    "linear_weight": _weights(8, 8),
    "bias": np.linspace(-0.5, 0.5, 8, dtype=np.float32),
    "slope": np.linspace(0.0, 0.5, 8, dtype=np.float32).reshape(8, 1, 1),
    "exponent": np.float32(1.5),
    "low": np.float32(-1.0),
    "high": np.float32(1.5),
    "zero": np.float32(0.0),
    "pixels": np.array([2, 3]),
    "last": np.array([3]),
    "starts": np.array([1, 0]),
    "ends": np.array([5, 6]),
    "steps": np.array([1, 2]),
    "flat": np.array([1, 288]),
    "wide": np.array([1, 8, 6, 6]),
    "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "sizes": np.array([1, 8, 12, 12]),
    "indices": np.array([3, 1, 0, 6]),
    "halves": np.array([4, 4]),
}
OPS = {op.op_type: op for op in CANONICAL_OPS}
PLANS = [(name, p) for name in available_targets() for p in find_target(name).precisions]

#: Largest difference to the stage that was written, over the range of the stage's values. int8: two
#: steps of 255; a weight in w8 and fp16 is rounded behind the stage.
LIMITS = {
    Precision.FP32: 1e-5,
    Precision.FP16: 5e-3,
    Precision.W8: 2e-2,
    Precision.INT8: 2.2 / 255,
}


def _inputs() -> dict[str, Array]:
    """Numbers that are multiples of 8-bit steps: rounding them is no error of an op."""
    return {
        "x": _on_grid((1, 8, 6, 6), -128, 127, 1 / 64),
        "p": _on_grid((1, 8, 6, 6), 64, 255, 1 / 128),
        "v": _on_grid((1, 8), -128, 127, 1 / 64),
    }


def _on_grid(shape: tuple[int, ...], low: int, high: int, step: float) -> Array:
    integers = np.random.default_rng(len(shape)).integers(low, high, shape, endpoint=True)
    integers.reshape(-1)[:2] = low, high  # the range that the step follows from
    return (integers * step).astype(np.float32)


def _network(op_types: list[str]) -> Model:
    lines = []
    for op_type in op_types:
        text = WRITTEN_OUT.get(op_type) or "{y} = " + BRANCHES.get(op_type, f"{op_type} (x)")
        lines.append(text.replace("{y}", f"y_{op_type}"))
    body = " ".join(lines)
    used = {name: array for name, array in CONSTANTS.items() if f"{name}" in body}
    return stage_of(
        body,
        "float[1, 8, 6, 6] x, float[1, 8, 6, 6] p, float[1, 8] v",
        ", ".join(f"y_{op_type}" for op_type in op_types),
        used,
    )


#: A runner, and what it gave for each output.
Ran = tuple[RunnerDefinition, dict[str, Array]]


def _table(model: Model) -> CalibrationTable:
    values = run_onnxruntime(model, _inputs(), everything=True) | _inputs()
    statistics = {
        name: ValueStatistics(
            float(v.min()), float(v.max()), float(v.mean()), float(v.std()), (v.size,), v.size
        )
        for name, v in values.items()
        if v.dtype == np.float32 and v.size
    }
    return CalibrationTable(statistics, 1, "test", "test")


def _own_limit(definition: RunnerDefinition, precision: Precision) -> float:
    """What a runner that computes in half precision may be off, over the range."""
    named = dict(limit.split("=") for limit in definition.limits)
    return float(named.get(f"{precision.value}.max_error_over_range", 0))


def _run(artifact: Artifact, name: str) -> list[Ran]:
    """Outputs by name, of every runner of the target that runs here, decoded."""
    found = []
    with TemporaryDirectory() as folder:
        for path, data in artifact.files("ops").items():
            file = Path(folder) / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        path = Path(folder) / f"ops{artifact.suffix}"
        if path.suffix != ".onnx":  # which is a source, and read as one
            assert find_target(name).recognizes(path)
            assert find_target(name).inspect(path)
        for definition in available_runners(find_target(name).runners):
            if definition.suffix or definition.options.get("vulkan"):
                continue
            module, _, attribute = definition.backend.partition(":")
            backend = getattr(import_module(module), attribute)(str(path), definition.options)
            inputs = {s.runtime_name: s.encode(_inputs()[s.name]) for s in artifact.inputs}
            raw = backend.run(inputs)
            outputs = {s.name: s.decode(raw[s.runtime_name]) for s in artifact.outputs}
            found.append((definition, outputs))
    return found


@cache
def _results(name: str, precision: Precision) -> tuple[dict[str, Array], list[Ran]]:
    """What the stage's outputs are, and what each runner gave for them."""
    target = find_target(name)
    carried = target.lowerings().ops
    stage = _network([op.op_type for op in CANONICAL_OPS if op.key in carried])
    policy = policy_of(target, precision, {})
    if policy is not None:
        stage = quantize_stage(
            stage, policy, ConvertRequest(method="minmax"), Calibration(_table(stage))
        )
    artifact = target.write(stage, ArtifactRequest(precision, {}))
    return run_onnxruntime(stage, _inputs()), _run(artifact, name)


@pytest.mark.parametrize("op_type", OPS)
@pytest.mark.parametrize(("name", "precision"), PLANS, ids=lambda p: getattr(p, "value", p))
def test_op(name: str, precision: Precision, op_type: str) -> None:
    if OPS[op_type].key not in find_target(name).lowerings().ops:
        pytest.skip(f"{name} refuses {op_type}")
    wanted, found = _results(name, precision)
    assert found
    stage = wanted[f"y_{op_type}"]
    reach = float(stage.max() - stage.min())
    assert reach > 0.1  # the branch computes something
    for definition, outputs in found:
        result = outputs[f"y_{op_type}"]
        assert result.shape == stage.shape
        limit = max(LIMITS[precision], _own_limit(definition, precision))
        assert float(np.abs(result - stage).max()) <= limit * reach


def test_every_op_has_a_branch_that_holds_it() -> None:
    model = _network(list(OPS))
    assert {node.op_type for node in model.graph.graph} == set(OPS)
