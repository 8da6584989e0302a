"""What the tests of this package share: tiny graphs to .mlpackage, read back and executed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from deploykit.calibration.table import CalibrationTable, ValueStatistics
from deploykit.graph.functions import add_function
from deploykit.graph.ops import DOMAIN, OPSET
from deploykit.model import Model, Precision, SourceInfo, Stage
from deploykit.target import Artifact, ArtifactRequest
from deploykit_coreml import TARGET
from deploykit_coreml.read_package import Package, ProgramOp, read_package
from deploykit_coreml.reference_backend import ReferenceBackend
from deploykit_quantize.quantizer import quantize_model

Arrays = dict[str, np.ndarray]


def stage_of(
    body: str,
    inputs: str,
    outputs: str,
    constants: Mapping[str, np.ndarray] | None = None,
) -> Model:
    """A fused stage from ONNX text; shapes are inferred."""
    results = ", ".join(f"float {name.strip()}" for name in outputs.split(","))
    text = (
        f'<ir_version: 10, opset_import: ["" : {OPSET}, "{DOMAIN}" : 1]>\n'
        f"g ({inputs}) => ({results}) {{ {body} }}"
    )
    proto = onnx.parser.parse_model(text)
    for result in proto.graph.output:
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
        proto.graph.output.extend(
            onnx.ValueInfoProto(name=name)
            for node in proto.graph.node
            for name in node.output
            if name not in known
        )
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


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """float32 weights."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


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
    """An artefact that was saved, read back."""

    artifact: Artifact
    folder: Path

    @cached_property
    def package(self) -> Package:
        return read_package(self.folder)

    @property
    def steps(self) -> list[ProgramOp]:
        """Operations but for constants."""
        return [op for op in self.package.operations if op.type != "const"]

    @property
    def ops(self) -> Counter[str]:
        """Type of operation → number, constants left out."""
        return Counter(op.type for op in self.steps)

    def constant(self, op: ProgramOp, parameter: str) -> np.ndarray | str:
        """The value of a parameter that is a constant."""
        (argument,) = op.inputs[parameter]
        for other in self.package.operations:
            if other.outputs[0][0] == argument:
                return other.attributes["val"]  # type: ignore[return-value]
        raise KeyError(parameter)

    @property
    def interleaved(self) -> int:
        """Number of interleaved concats."""
        return sum(
            bool(self.constant(op, "interleave")) for op in self.steps if op.type == "concat"
        )

    def run(self, inputs: Arrays) -> Arrays:
        """Outputs in float32 and in the stage's layout, by the reference executor."""
        backend = ReferenceBackend(str(self.folder), {})
        encoded = {s.name: s.encode(inputs[s.name]) for s in self.artifact.inputs}
        found = backend.run(encoded)
        return {s.name: s.decode(found[s.name]) for s in self.artifact.outputs}


def save(artifact: Artifact, folder: Path) -> Path:
    """The package's folder, written below ``folder``."""
    stem = f"tiny.{artifact.precision.value}"
    for path, data in artifact.files(stem).items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return folder / f"{stem}{artifact.suffix}"


def write(
    folder: Path, model: Model, precision: Precision = Precision.FP32, **options: str
) -> Written:
    """The saved artefact of a stage."""
    artifact = TARGET.write(model, ArtifactRequest(precision, options))
    return Written(artifact, save(artifact, folder))


def error_of(found: np.ndarray, wanted: np.ndarray) -> float:
    """Largest difference, over the largest magnitude."""
    assert found.shape == wanted.shape
    return float(np.abs(found - wanted).max() / max(float(np.abs(wanted).max()), 1e-6))


def assert_float_parity(
    folder: Path, model: Model, inputs: Arrays | None = None, *, fp16: float = 5e-3
) -> Written:
    """fp32 is what ONNX Runtime gives; fp16 is near it. Returns the fp32 package."""
    inputs = random_inputs(model) if inputs is None else inputs
    wanted = run_onnxruntime(model, inputs)
    for precision, tolerance in ((Precision.FP16, fp16), (Precision.FP32, 3e-6)):
        written = write(folder, model, precision)
        found = written.run(inputs)
        assert set(found) == set(wanted)
        for name, want in wanted.items():
            assert error_of(found[name], want) <= tolerance, (precision, name)
    return written


def assert_int8_parity(
    folder: Path, model: Model, inputs: Arrays | None = None, *, steps: float = 1.0
) -> Written:
    """int8 gives what the QDQ stage gives in ONNX Runtime, within steps. Returns the package."""
    inputs = random_inputs(model) if inputs is None else inputs
    stage = quantized(model, inputs)
    wanted = run_onnxruntime(stage, inputs)
    for compute in ("float32", "float16"):
        written = write(folder, stage, Precision.INT8, compute=compute)
        found = written.run(inputs)
        for name, want in wanted.items():
            params = written.artifact.output_steps[name]
            assert np.abs(found[name] - want).max() <= (steps + 0.1) * params.scale[0], compute
    return written
