"""The target as data: what the core is told of it, and where each capability stands."""

from __future__ import annotations

from deploykit.model import Precision
from deploykit.runners.arm64 import on_arm64
from deploykit.runners.base import RunnerDefinition
from deploykit.runners.environments import Environment
from deploykit.target_definition import TargetDefinition
from deploykit_ncnn.options import OPTIONS

NAME = "ncnn"
_BACKEND = "deploykit_ncnn.backends:NcnnBackend"
#: float16 storage and arithmetic: 48-60 dB and at most 6e-3 of the range on ten families on ARM
#: cores; a kernel that is wrong leaves 14-33 dB.
_FLOAT16_LIMITS = tuple(
    f"{precision}.{limit}"
    for precision in ("fp32", "fp16")
    for limit in ("max_error_over_range=2e-2", "reference_error_over_range=2e-2", "snr_db=40")
)
#: The oldest wheel that pip serves for this Python; it was built for the older numpy.
NCNN_OLD = Environment(
    name="ncnn-old",
    requirements=("ncnn==1.0.20221128", "numpy<2"),
    python="3.11",
    imports="ncnn",
)

_RUNNERS = (
    RunnerDefinition(
        name="ncnn",
        backend=_BACKEND,
        requires="ncnn",
        extra=NAME,
        runs=NAME,
        description="ncnn on the CPU, float32 arithmetic: the same numbers on every CPU",
    ),
    RunnerDefinition(
        name="ncnn-vulkan",
        backend=_BACKEND,
        requires="ncnn",
        extra=NAME,
        runs=NAME,
        description="ncnn by Vulkan, float32 arithmetic",
        options={"vulkan": True},
        probe="deploykit_ncnn.backends:why_no_vulkan",
    ),
    RunnerDefinition(
        name="ncnn-default",
        backend=_BACKEND,
        requires="ncnn",
        extra=NAME,
        runs=NAME,
        description="ncnn on the CPU by its own options, as apps run it that set none: float16 "
        "storage, and arithmetic where the CPU has it",
        options={"arithmetic": "default"},
        limits=_FLOAT16_LIMITS,
    ),
)
_OLD = RunnerDefinition(
    name="ncnn-old",
    backend=_BACKEND,
    requires="",
    extra="",
    runs=NAME,
    description="ncnn 20221128 on the CPU, float32 arithmetic, the oldest that pip serves, on "
    "request",
    on_request=True,
    environment=NCNN_OLD,
)

TARGET = TargetDefinition(
    name=NAME,
    precisions=(Precision.FP32, Precision.FP16, Precision.INT8),
    writer="deploykit_ncnn.target:write_artifact",
    lowering_table="deploykit_ncnn.lower_graph:lowering_table",
    recognizer="deploykit_ncnn.read_files:is_param",
    inspector="deploykit_ncnn.inspect_files:inspect_files",
    quantization="deploykit_ncnn.target:choose_policy",
    layer_cutter="deploykit_ncnn.cut_layers:cut_layers",
    options=OPTIONS,
    runners=(*_RUNNERS, _OLD, *(on_arm64(r) for r in _RUNNERS if not r.probe)),
)
