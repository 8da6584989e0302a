"""The target as data: what the core is told of it, and where each capability stands."""

from __future__ import annotations

from dataclasses import replace

from deploykit.model import Precision
from deploykit.runners.arm64 import on_arm64
from deploykit.runners.base import RunnerDefinition
from deploykit.runners.environments import Environment
from deploykit.target_definition import TargetDefinition
from deploykit_onnx.options import OPTIONS

NAME = "onnx"
_BACKEND = "deploykit.runners.onnxruntime_backend:OrtBackend"
_FILE_BACKEND = "deploykit_onnx.ort_file_backend:OrtFileBackend"
_ORT = ".ort"


def _runner(name: str, optimization: str, description: str) -> RunnerDefinition:
    return RunnerDefinition(
        name=name,
        backend=_BACKEND,
        requires="onnxruntime",
        extra="all",
        runs=NAME,
        description=description,
        options={"optimization": optimization},
    )


_OPTIMIZED = _runner(
    "onnxruntime-optimized",
    "all",
    "ONNX Runtime on the CPU as apps run it: fusions and integer kernels on",
)
#: The oldest that reads IR version 10, which our files have; it was built for the older numpy, and
#: onnx is what gives a file's values.
ONNXRUNTIME_OLD = Environment(
    name="onnxruntime-old",
    requirements=("onnxruntime==1.18.0", "numpy<2", "onnx<1.18"),
    python="3.11",
    imports="onnxruntime",
)

TARGET = TargetDefinition(
    name=NAME,
    precisions=(
        Precision.FP32,
        Precision.FP16,
        Precision.W8,
        Precision.INT8,
    ),
    writer="deploykit_onnx.target:write_artifact",
    lowering_table="deploykit_onnx.target:lowering_table",
    recognizer="deploykit_onnx.target:recognizes",
    inspector="deploykit_onnx.target:inspect",
    quantization="deploykit_onnx.target:choose_policy",
    request_check="deploykit_onnx.target:check_request",
    options=OPTIONS,
    runners=(
        _OPTIMIZED,
        _runner(
            "onnxruntime-plain",
            "disabled",
            "ONNX Runtime on the CPU, node by node as the file is written",
        ),
        RunnerDefinition(
            name="onnxruntime-ort",
            backend=_FILE_BACKEND,
            requires="onnxruntime",
            extra="all",
            runs=NAME,
            description="ONNX Runtime on the CPU, on the .ort file if one was written",
            suffix=_ORT,
        ),
        replace(
            _OPTIMIZED,
            name="onnxruntime-old",
            requires="",
            extra="",
            description="ONNX Runtime 1.18.0 (2024) as apps run it, the oldest that reads our "
            "files, on request",
            on_request=True,
            environment=ONNXRUNTIME_OLD,
        ),
        on_arm64(replace(_OPTIMIZED, name="onnxruntime")),
    ),
)
