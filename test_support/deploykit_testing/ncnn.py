"""What the tests of this package share: tiny graphs to .param and .bin, run by ncnn itself."""

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
import pytest

pytest.importorskip("ncnn", reason="ncnn is not installed (extra [ncnn])")

from deploykit.calibration.table import CalibrationTable, ValueStatistics
from deploykit.graph.functions import add_function
from deploykit.graph.ops import DOMAIN, OPSET
from deploykit.model import Model, Precision, SourceInfo, Stage
from deploykit.target import Artifact, ArtifactRequest
from deploykit_ncnn import TARGET
from deploykit_ncnn.backends import NcnnBackend
from deploykit_ncnn.layer_graph import Layer
from deploykit_ncnn.read_files import read_param, unknown_layer
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


def quantized(model: Model, inputs: Arrays, **options: str) -> Model:
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
    policy = TARGET.policy(Precision.INT8, options)
    assert policy is not None
    return quantize_model(model, policy, table)


@dataclass(frozen=True)
class Written:
    """An artefact that was saved, read back and run."""

    artifact: Artifact
    path: Path

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        return read_param(self.path)

    @property
    def types(self) -> Counter[str]:
        """Type of layer → number, inputs left out."""
        return Counter(layer.type for layer in self.layers if layer.type != "Input")

    def layer(self, kind: str) -> Layer:
        """The one layer of a type."""
        (found,) = (layer for layer in self.layers if layer.type == kind)
        return found

    def run(self, inputs: Arrays, **options: object) -> Arrays:
        """Outputs in float32 and in the stage's layout."""
        backend = NcnnBackend(str(self.path), options)
        encoded = {s.runtime_name: s.encode(inputs[s.name]) for s in self.artifact.inputs}
        found = backend.run(encoded)
        return {s.name: s.decode(found[s.runtime_name]) for s in self.artifact.outputs}

    def run_all(self, inputs: Arrays, **options: object) -> Arrays:
        """Every value that the stage and the file both have, by the stage's names."""
        backend = NcnnBackend(str(self.path), options)
        encoded = {s.runtime_name: s.encode(inputs[s.name]) for s in self.artifact.inputs}
        found = backend.run_all(encoded)
        specs = self.artifact.value_specs
        return {v: specs[b].decode(found[b]) for v, b in self.artifact.value_names.items()}


def save(artifact: Artifact, folder: Path) -> Path:
    """The .param file's path, both files written below ``folder``."""
    stem = f"tiny.{artifact.precision.value}"
    for path, data in artifact.files(stem).items():
        (folder / path).write_bytes(data)
    return folder / f"{stem}{artifact.suffix}"


def write(
    folder: Path, model: Model, precision: Precision = Precision.FP32, **options: str
) -> Written:
    """The saved artefact of a stage."""
    artifact = TARGET.write(model, ArtifactRequest(precision, options))
    written = Written(artifact, save(artifact, folder))
    assert unknown_layer(written.layers) is None  # what is written is read back, all of it
    return written


def error_of(found: np.ndarray, wanted: np.ndarray) -> float:
    """Largest difference, over the largest magnitude."""
    assert found.shape == wanted.shape
    return float(np.abs(found - wanted).max() / max(float(np.abs(wanted).max()), 1e-6))


def assert_float_parity(
    folder: Path,
    model: Model,
    inputs: Arrays | None = None,
    *,
    fp16: float = 5e-3,
    tolerance: float = 5e-6,
) -> Written:
    """fp32 is what ONNX Runtime gives, every value of it; fp16 is near it. Returns fp32."""
    inputs = random_inputs(model) if inputs is None else inputs
    wanted = run_onnxruntime(model, inputs, everything=True)
    half = write(folder, model, Precision.FP16).run(inputs)
    written = write(folder, model)
    found = written.run(inputs)
    assert set(found) == {s.name for s in model.outputs}
    for name, values in found.items():
        assert error_of(half[name], wanted[name]) <= fp16, name
        assert error_of(values, wanted[name]) <= tolerance, name
    for name, values in written.run_all(inputs).items():
        assert error_of(values, wanted[name]) <= tolerance, name
    return written
