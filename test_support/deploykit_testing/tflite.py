"""What the tests of this package share: tiny graphs to .tflite, run by LiteRT and ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from deploykit.calibration.table import CalibrationTable, ValueStatistics
from deploykit.graph.functions import add_function
from deploykit.graph.ops import DOMAIN, OPSET
from deploykit.model import Model, Precision, SourceInfo, Stage
from deploykit.target import Artifact, ArtifactRequest
from deploykit_quantize.quantizer import quantize_model
from deploykit_tflite import TARGET
from deploykit_tflite.backends import count_delegated
from deploykit_tflite.tflite_graph import ACTIVATION_NAMES
from deploykit_tflite.write_flatbuffer import load_schema

Arrays = dict[str, np.ndarray]


def stage_of(
    body: str,
    inputs: str,
    outputs: str,
    constants: Mapping[str, np.ndarray] | None = None,
) -> Model:
    """A fused stage from ONNX text.

    Args:
        body: The nodes, e.g. ``y = Relu(x)``.
        inputs: E.g. ``float[1,3,8,8] x``.
        outputs: E.g. ``y``; shapes are inferred.
        constants: Initializers.
    """
    results = ", ".join(f"float {name.strip()}" for name in outputs.split(","))
    text = (
        f'<ir_version: 10, opset_import: ["" : {OPSET}, "{DOMAIN}" : 1]>\n'
        f"g ({inputs}) => ({results}) {{ {body} }}"
    )
    proto = onnx.parser.parse_model(text)
    for result in proto.graph.output:  # the text says rank 0; the shape is to be inferred
        result.type.tensor_type.ClearField("shape")
    for name, array in (constants or {}).items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    model = ir.from_proto(proto)
    for node in list(model.graph):
        if node.domain == DOMAIN:
            add_function(model, node.op_type)
    proto = onnx.shape_inference.infer_shapes(ir.to_proto(model), strict_mode=True, data_prop=True)
    return Model(ir.from_proto(proto), Stage.FUSED, "tiny", SourceInfo("onnx"))


def run_onnxruntime(model: Model, inputs: Arrays, *, everything: bool = False) -> Arrays:
    """Outputs, or every value, of a stage, without graph optimizations."""
    proto = ir.to_proto(model.graph)
    if everything:
        known = {o.name for o in proto.graph.output}
        for node in proto.graph.node:
            for name in node.output:
                if name not in known:
                    proto.graph.output.append(onnx.ValueInfoProto(name=name))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options)
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def random_inputs(model: Model, seed: int = 0, low: float = -2.0, high: float = 2.0) -> Arrays:
    """Uniform inputs for a stage."""
    generator = np.random.default_rng(seed)
    return {
        spec.name: generator.uniform(low, high, spec.shape).astype(np.float32)
        for spec in model.inputs
    }


def quantized(model: Model, inputs: Arrays) -> Model:
    """The QDQ stage by this target's policy, ranges those of one run."""
    values = run_onnxruntime(model, inputs, everything=True) | inputs
    table = CalibrationTable(
        values={
            name: ValueStatistics(
                minimum=float(v.min()),
                maximum=float(v.max()),
                mean=float(v.mean()),
                std=float(v.std()),
                histogram=(v.size,),
                count=v.size,
            )
            for name, v in values.items()
            if v.dtype == np.float32 and v.size
        },
        samples=1,
        data_fingerprint="test",
        model_fingerprint="test",
    )
    policy = TARGET.policy(Precision.INT8)
    assert policy is not None
    return quantize_model(model, policy, table)


@dataclass(frozen=True)
class Written:
    """An artefact, read back."""

    artifact: Artifact

    @cached_property
    def tree(self) -> Any:
        schema = load_schema()
        return schema.ModelT.InitFromObj(schema.Model.GetRootAs(self.artifact.data, 0))

    def _code(self, op: Any) -> Any:
        return self.tree.operatorCodes[op.opcodeIndex]

    @property
    def ops(self) -> list[str]:
        """Operator names in order."""
        names = {
            v: k for k, v in vars(load_schema().BuiltinOperator).items() if not k.startswith("_")
        }
        return [names[self._code(op).builtinCode] for op in self.tree.subgraphs[0].operators]

    @property
    def versions(self) -> dict[str, int]:
        """Operator name → version."""
        return dict(
            zip(
                self.ops,
                (self._code(op).version for op in self.tree.subgraphs[0].operators),
                strict=True,
            )
        )

    @property
    def fused(self) -> list[str]:
        """Fused activation of each operator; empty for none."""
        return [
            ACTIVATION_NAMES[getattr(op.builtinOptions, "fusedActivationFunction", 0)]
            for op in self.tree.subgraphs[0].operators
        ]

    @property
    def tensors(self) -> dict[str, Any]:
        """Name → tensor."""
        return {t.name.decode(): t for t in self.tree.subgraphs[0].tensors}

    def interpreter(self, kernels: str, *, preserve: bool = False) -> Any:
        kinds = {"xnnpack": "AUTO", "reference": "BUILTIN_REF"}
        interpreter = Interpreter(
            model_content=self.artifact.data,
            experimental_op_resolver_type=OpResolverType[kinds[kernels]],
            experimental_preserve_all_tensors=preserve,
        )
        interpreter.allocate_tensors()
        return interpreter

    def run(self, inputs: Arrays, kernels: str = "reference") -> Arrays:
        """Outputs in float and in the stage's layout."""
        interpreter = self.interpreter(kernels)
        by_name = {d["name"]: d["index"] for d in interpreter.get_input_details()}
        for spec in self.artifact.inputs:
            interpreter.set_tensor(by_name[spec.name], spec.encode(inputs[spec.name]))
        interpreter.invoke()
        found = {d["name"]: d["index"] for d in interpreter.get_output_details()}
        return {
            spec.name: spec.decode(interpreter.get_tensor(found[spec.name]))
            for spec in self.artifact.outputs
        }

    @cached_property
    def delegation(self) -> dict[str, int]:
        """Partitions, delegated operators and operators, as LiteRT with XNNPACK plans them."""
        return count_delegated(self.interpreter("xnnpack"))

    @property
    def is_one_partition(self) -> bool:
        """Whether XNNPACK takes every operator, all in one partition."""
        found = self.delegation
        return found["partitions"] == 1 and found["delegated_ops"] == found["ops"]


def write(model: Model, precision: Precision = Precision.FP32, **options: str) -> Written:
    """The artefact of a stage."""
    return Written(TARGET.write(model, ArtifactRequest(precision, options)))


def assert_float_parity(
    model: Model,
    inputs: Arrays | None = None,
    *,
    tolerance: float = 2e-6,
    kernels: tuple[str, ...] = ("reference", "xnnpack"),
) -> Written:
    """fp32: LiteRT gives what ONNX Runtime gives, within a share of the output's range."""
    inputs = random_inputs(model) if inputs is None else inputs
    expected = run_onnxruntime(model, inputs)
    written = write(model)
    for kernel in kernels:
        found = written.run(inputs, kernel)
        assert set(found) == set(expected)
        for name, want in expected.items():
            assert found[name].shape == want.shape
            scale = max(float(np.abs(want).max()), 1e-6)
            np.testing.assert_allclose(
                found[name] / scale, want / scale, rtol=0, atol=tolerance, err_msg=kernel
            )
    return written


def assert_int8_parity(
    model: Model,
    inputs: Arrays | None = None,
    *,
    steps: float = 1.0,
    kernels: tuple[str, ...] = ("reference", "xnnpack"),
) -> Written:
    """int8: LiteRT gives what the QDQ stage gives in ONNX Runtime, within steps of the output."""
    inputs = random_inputs(model) if inputs is None else inputs
    stage = quantized(model, inputs)
    expected = run_onnxruntime(stage, inputs)
    written = write(stage, Precision.INT8)
    scales = {s.name: s.quantization for s in written.artifact.outputs}
    for kernel in kernels:
        found = written.run(inputs, kernel)
        for name, want in expected.items():
            params = scales[name]
            assert params is not None, f"output {name} is float"
            error = np.abs(found[name] - want).max() / params.scale[0]
            assert error <= steps + 1e-3, f"{kernel}: {error} steps"
    return written
