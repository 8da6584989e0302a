"""The target as data: what the core is told of it, and where each capability stands."""

from __future__ import annotations

from deploykit.model import Precision
from deploykit.runners.arm64 import on_arm64
from deploykit.runners.base import RunnerDefinition
from deploykit.runners.environments import Environment
from deploykit.target_definition import TargetDefinition
from deploykit_tflite import ethos_u
from deploykit_tflite.options import OPTIONS

NAME = "tflite"
_BACKEND = "deploykit_tflite.backends:LiteRtBackend"


#: The oldest runtime that phones in the field still have; its last release is of 2023.
TFLITE_RUNTIME = Environment(
    name="tflite-runtime",
    requirements=("tflite-runtime==2.14.0", "numpy<2"),
    python="3.11",
    imports="tflite_runtime.interpreter",
)

#: The oldest LiteRT that pip serves for this Python; it was built for the older numpy.
LITERT_OLD = Environment(
    name="litert-old",
    requirements=("ai-edge-litert==1.0.1", "numpy<2"),
    python="3.11",
    imports="ai_edge_litert.interpreter",
)

#: Its wheels bring numpy of their own choice.
TFLITE_MICRO = Environment(
    name="tflite-micro",
    requirements=("tflite-micro",),
    python="3.11",
    imports="tflite_micro.python.tflite_micro.runtime",
)

#: A compiler: 2 MB, and numpy.
ETHOS_U = Environment(
    name="ethos-u",
    requirements=("ethos-u-vela",),
    python="3.11",
    imports="ethosu.vela.vela",
)


def _runner(name: str, kernels: str, description: str) -> RunnerDefinition:
    return RunnerDefinition(
        name=name,
        backend=_BACKEND,
        requires="ai_edge_litert",
        extra="tflite",
        runs=NAME,
        description=description,
        options={"kernels": kernels},
    )


_RUNNERS = (
    _runner("litert", "xnnpack", "LiteRT with XNNPACK, as phones run it on the CPU"),
    _runner("litert-reference", "reference", "LiteRT's reference kernels, the golden"),
)
_SECOND_OPINIONS = (
    RunnerDefinition(
        name="tensorflow-lite",
        backend=_BACKEND,
        requires="tensorflow",
        extra="tensorflow",
        runs=NAME,
        description="TensorFlow's own interpreter with XNNPACK, on request",
        options={"kernels": "xnnpack", "package": "tensorflow"},
        on_request=True,
    ),
    RunnerDefinition(
        name="tflite-runtime",
        backend=_BACKEND,
        requires="",
        extra="",
        runs=NAME,
        description="tflite-runtime 2.14 with XNNPACK, the oldest in the field, on request",
        options={"kernels": "xnnpack", "package": "tflite_runtime"},
        on_request=True,
        environment=TFLITE_RUNTIME,
    ),
    RunnerDefinition(
        name="litert-old",
        backend=_BACKEND,
        requires="",
        extra="",
        runs=NAME,
        description="LiteRT 1.0.1 (2024) with XNNPACK, the oldest that pip serves, on request",
        options={"kernels": "xnnpack"},
        on_request=True,
        environment=LITERT_OLD,
    ),
    RunnerDefinition(
        name="tflite-micro",
        backend="deploykit_tflite.micro_backend:MicroBackend",
        requires="",
        extra="",
        runs=NAME,
        description="TFLM, the runtime of microcontrollers, in the smallest arena; fp32 and int8, "
        "on request",
        on_request=True,
        environment=TFLITE_MICRO,
    ),
    RunnerDefinition(
        name=ethos_u.RUNNER,
        backend="deploykit_tflite.vela_backend:VelaBackend",
        requires="",
        extra="",
        runs=NAME,
        description="Arm's compiler for Ethos-U NPUs (U55, U65, U85): what is left to the CPU, and "
        "its estimates; nothing is run; int8, on request",
        on_request=True,
        environment=ETHOS_U,
    ),
)

TARGET = TargetDefinition(
    name=NAME,
    precisions=(
        Precision.FP32,
        Precision.FP16,
        Precision.W8,
        Precision.INT8,
    ),
    writer="deploykit_tflite.target:write_artifact",
    lowering_table="deploykit_tflite.target:lowering_table",
    recognizer="deploykit_tflite.target:recognizes",
    inspector="deploykit_tflite.inspect_file:inspect_file",
    quantization="deploykit_tflite.target:choose_policy",
    request_check="deploykit_tflite.target:check_request",
    file_measurer="deploykit_tflite.measure_files:measure_files",
    op_profiler="deploykit_tflite.profile_ops:profile_ops",
    split_finder="deploykit_tflite.delegate_splits:find_delegate_splits",
    options=OPTIONS,
    runners=(
        *_RUNNERS,
        *_SECOND_OPINIONS,
        *map(on_arm64, _RUNNERS),
    ),
)
