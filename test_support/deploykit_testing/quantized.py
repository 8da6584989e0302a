"""What the tests of quantization share: a policy, networks, tables, a simulation of integers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import onnxruntime

from deploykit.calibration.collect import collect_statistics, observed_values
from deploykit.calibration.data import CalibrationData
from deploykit.calibration.table import CalibrationTable
from deploykit.graph.qdq import QuantizedGraph
from deploykit.graph.reading import constant_array
from deploykit.model import Model, Stage
from deploykit.passes.infer_shapes import InferShapes
from deploykit.tensors import Array
from deploykit_quantize.policy import FixedParams, Policy, Recipe
from deploykit_quantize.quantizer import quantize_model
from deploykit_testing.graphs import as_model, parse

SAME = frozenset({"MaxPool", "AveragePool", "Reshape", "Transpose", "Slice", "Split", "Pad"})
JOINED = frozenset({"Concat", "ConcatShuffleSplit"})
FIXED = {"Sigmoid": FixedParams(1 / 256, -128), "Softmax": FixedParams(1 / 256, -128)}
POLICY = Policy(
    recipe=Recipe.parse("static_wi8_ai8"),
    quantized_ops=SAME
    | JOINED
    | frozenset(FIXED)
    | {"Add", "Clip", "Conv", "ConvTranspose", "Gemm", "Mul", "PRelu", "ReduceMean", "Relu", "Sub"},
    same_scale_ops=SAME,
    joined_scale_ops=JOINED,
    fixed_outputs=FIXED,
)

#: A stem, a residual block with a depthwise convolution, a squeeze-and-excite, a ghost module
#: (concat), pooling and a classifier.
NETWORK = """agraph (float[1, 3, 16, 16] x, float[8, 3, 3, 3] W0, float[8] B0,
    float[8, 1, 3, 3] W1, float[8] B1, float[8, 8, 1, 1] W2, float[8] B2,
    float[4, 8, 1, 1] W3, float[4] B3, float[8, 4, 1, 1] W4, float[8] B4,
    float[8, 1, 3, 3] W5, float[5, 16] W6, float[5] B6) => (float[1, 5] y)
  <float zero = {0.0}, float six = {6.0}, int64[2] axes = {2, 3}, int64[2] flat = {1, 16}>
{
    c0 = Conv <pads = [1, 1, 1, 1], strides = [2, 2], kernel_shape = [3, 3]> (x, W0, B0)
    r0 = Relu (c0)
    c1 = Conv <pads = [1, 1, 1, 1], group = 8, kernel_shape = [3, 3]> (r0, W1, B1)
    r1 = Clip (c1, zero, six)
    c2 = Conv <kernel_shape = [1, 1]> (r1, W2, B2)
    s = Add (c2, r0)
    m = ReduceMean <keepdims = 1> (s, axes)
    c3 = Conv <kernel_shape = [1, 1]> (m, W3, B3)
    r3 = Relu (c3)
    c4 = Conv <kernel_shape = [1, 1]> (r3, W4, B4)
    gate = Sigmoid (c4)
    e = Mul (s, gate)
    g = Conv <pads = [1, 1, 1, 1], group = 8, kernel_shape = [3, 3]> (e, W5)
    ghost = Concat <axis = 1> (e, g)
    p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (ghost)
    a = ReduceMean <keepdims = 1> (p, axes)
    f = Reshape (a, flat)
    y = Gemm <transB = 1> (f, W6, B6)
}"""


def fused(text: str, *, seed: int = 0) -> Model:
    """A fused stage from ONNX text; weights are scaled so that signals keep their size."""
    graph = parse(text, seed=seed)
    for value in graph.graph.initializers.values():
        data = constant_array(value)
        assert data is not None
        if (value.name or "").startswith("W") and data.ndim > 1:
            scaled = data * np.float32(np.sqrt(2 / data[0].size))
            value.const_value = ir.Tensor(scaled.astype(np.float32), name=value.name)
    InferShapes().apply(graph)
    return as_model(graph, Stage.FUSED)


def samples_of(model: Model, count: int = 16, seed: int = 5) -> Array:
    """Smooth inputs (n, ...), float32: neighbouring pixels are alike."""
    rng = np.random.default_rng(seed)
    shape = model.inputs[0].shape[1:]
    data = rng.standard_normal((count, *shape))
    if len(shape) == 3:
        for axis in (2, 3):
            data = data + np.roll(data, 1, axis) + np.roll(data, 2, axis)
        data = data / 3
    return data.astype(np.float32)


def as_data(samples: Array) -> CalibrationData:
    """Samples (n, ...) of the input ``x`` as calibration data."""
    return CalibrationData("samples", len(samples), lambda index: {"x": samples[index]})


def calibrate(model: Model, count: int = 16) -> CalibrationTable:
    """A table from `samples_of`."""
    return collect_statistics(model, as_data(samples_of(model, count)))


def run_values(model: ir.Model, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Every float value of a model by name, in ONNX Runtime without graph rewrites."""
    proto = ir.to_proto(model)
    names = [v.name or "" for v in observed_values(model)]
    known = {v.name for v in proto.graph.output}
    for name in names:
        if name not in known:
            proto.graph.output.add().name = name
    return dict(zip(names, _session(proto.SerializeToString()).run(names, feeds), strict=True))


def _session(data: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def simulate(graph: QuantizedGraph, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Run a folded graph, each node by itself, rounding every value that has parameters."""

    def rounded(name: str, real: Array) -> Array:
        params = graph.params.get(name)
        return real if params is None else params.dequantize(params.quantize(real))

    reals = {name: rounded(name, data) for name, data in feeds.items()}
    for node in graph.model.graph:
        output = node.outputs[0].name or ""
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert node.inputs[0] is not None
            reals[output] = rounded(output, reals[node.inputs[0].name or ""])
            continue
        results = _run_node(graph, node, reals)
        reals.update({name: rounded(name, real) for name, real in results.items()})
    return reals


def _run_node(graph: QuantizedGraph, node: ir.Node, reals: Mapping[str, Array]) -> dict[str, Array]:
    fed, inputs, initializers = {}, [], []
    for value in node.inputs:
        if value is None or value.name in fed or value in initializers:
            continue
        data = constant_array(value)
        name = value.name or ""
        if data is not None and name in graph.integers:  # by way of the integers themselves
            data = graph.params[name].dequantize(graph.integers[name])
        fed[name] = reals[name] if data is None else data
        inputs.append(value)
    single = ir.Model(
        ir.Graph(inputs=[], outputs=[], nodes=[], opset_imports={"": 20, "deploykit": 1}),
        ir_version=9,
        functions=[f.clone() for f in graph.model.functions.values()],
    )
    proto = ir.to_proto(single)
    proto.graph.name = "single"
    proto.graph.node.append(ir.to_proto(node))
    for value in inputs:
        data = fed[value.name or ""]
        typed = ir.Value(
            name=value.name,
            shape=ir.Shape(data.shape),
            type=ir.TensorType(ir.DataType.from_numpy(data.dtype)),
        )
        proto.graph.input.append(ir.to_proto(typed))
    names = [v.name or "" for v in node.outputs]
    for name in names:
        proto.graph.output.add().name = name
    results = _session(proto.SerializeToString()).run(names, fed)
    return dict(zip(names, results, strict=True))


def describe_nodes(model: ir.Model) -> list[str]:
    """Each node as ``op(inputs) → outputs``, constants left out, in the graph's order."""
    rows = []
    for node in model.graph:
        inputs = [v.name or "" for v in node.inputs if v is not None and v.const_value is None]
        if not inputs:
            continue
        outputs = [v.name or "" for v in node.outputs]
        short = {"QuantizeLinear": "Q", "DequantizeLinear": "DQ"}.get(node.op_type, node.op_type)
        rows.append(f"{short}({', '.join(inputs)}) > {', '.join(outputs)}")
    return rows


def snr_db(reference: Array, measured: Array) -> float:
    """Signal to noise in dB."""
    noise = float(((reference - measured) ** 2).sum())
    return float(10 * np.log10(float((reference**2).sum()) / max(noise, 1e-30)))


def quantized(text: str, policy: Policy = POLICY, *, seed: int = 0) -> Model:
    """The quantized stage of `fused` text, calibrated on `samples_of`."""
    model = fused(text, seed=seed)
    return quantize_model(model, policy, calibrate(model))


def scale_of(model: Model, value: str) -> tuple[float, int]:
    """Scale and zero point with which the QuantizeLinear that makes ``value`` rounds."""
    for node in model.graph.graph:
        if node.op_type == "QuantizeLinear" and node.outputs[0].name == value:
            scale, zero = constant_array(node.inputs[1]), constant_array(node.inputs[2])
            assert scale is not None
            assert zero is not None
            return float(scale), int(zero)
    raise AssertionError(value)
