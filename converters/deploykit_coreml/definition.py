"""The target as data: what the core is told of it, and where each capability stands."""

from __future__ import annotations

from deploykit.model import Precision
from deploykit.runners.base import RunnerDefinition
from deploykit.target_definition import TargetDefinition
from deploykit_coreml.options import OPTIONS

NAME = "coreml"

TARGET = TargetDefinition(
    name=NAME,
    precisions=(
        Precision.FP32,
        Precision.FP16,
        Precision.W8,
        Precision.INT8,
    ),
    writer="deploykit_coreml.target:write_artifact",
    lowering_table="deploykit_coreml.lower_graph:lowering_table",
    recognizer="deploykit_coreml.read_package:is_package",
    inspector="deploykit_coreml.inspect_package:inspect_package",
    quantization="deploykit_coreml.target:choose_policy",
    request_check="deploykit_coreml.target:check_request",
    preferred=Precision.FP16,
    options=OPTIONS,
    runners=(
        RunnerDefinition(
            name="coreml",
            backend="deploykit_coreml.apple_backend:CoremlBackend",
            requires="coremltools",
            extra="coreml",
            runs=NAME,
            description="Apple's Core ML; on macOS only",
            probe="deploykit_coreml.apple_backend:why_unavailable",
        ),
        RunnerDefinition(
            name="coreml-reference",
            backend="deploykit_coreml.reference_backend:ReferenceBackend",
            requires="coremltools",
            extra="coreml",
            runs=NAME,
            description="our reference executor of the saved package, not Apple's runtime",
        ),
    ),
)
