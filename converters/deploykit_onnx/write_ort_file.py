"""The .ort flatbuffer of a model, and the operators that a reduced build of the runtime needs.

The optimizations are those that hold on any CPU: fusions, integer kernels and constant folding, not
the channel-blocked layout that is chosen for the machine that the file is written on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploykit.errors import SourceError
from deploykit.temporary import scratch_folder
from deploykit_onnx.rewrite_ort_file import sort_kernel_types


@dataclass(frozen=True)
class OrtFile:
    """An .ort file in memory.

    Attributes:
        data: The flatbuffer.
        operators: The text for ``--include_ops_by_config`` of ONNX Runtime's build: a line
            ``domain;opset;op{types},op{types},...`` for each domain and opset. The types are read
            where the build is asked for ``--enable_reduced_operator_type_support``, too.
    """

    data: bytes
    operators: str


def write_ort_file(model: bytes) -> OrtFile:
    """The .ort form of a serialized ONNX model; the same bytes for the same model.

    Raises:
        Exception: ONNX Runtime's own, if it refuses the model (a bug of ours).
    """
    import onnxruntime

    with scratch_folder() as folder:
        path = folder / "model.ort"
        options = onnxruntime.SessionOptions()
        levels = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_ENABLE_EXTENDED
        options.intra_op_num_threads = 1
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 3  # it warns that an optimized file suits this machine only
        options.add_session_config_entry("session.save_model_format", "ORT")
        # Signed activations stay signed: phones' CPUs multiply int8 by int8.
        options.add_session_config_entry("session.qdqisint8allowed", "1")
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return OrtFile(sort_kernel_types(path.read_bytes()), _required_operators(path))


def read_operators(path: Path) -> dict[str, dict[int, set[str]]]:
    """Domain → opset → op types of an .ort file.

    Raises:
        SourceError: the file is damaged.
    """
    return _process(path, None)


def _process(path: Path, types: Any) -> dict[str, dict[int, set[str]]]:
    """The operators of a file; ``types`` takes note of the types that each is used with."""
    from onnxruntime.tools.ort_format_model import OrtFormatModelProcessor

    found: dict[str, dict[int, set[str]]] = {}
    try:
        OrtFormatModelProcessor(str(path), found, types).process()
    except Exception as error:  # the flatbuffers package raises what the bytes lead it to
        raise SourceError(
            f"{path} is damaged: {type(error).__name__}: {error}",
            expected="an .ort file that ONNX Runtime has written",
        ) from error
    return found


def _required_operators(path: Path) -> str:
    from onnxruntime.tools.ort_format_model import OperatorTypeUsageManager

    types = OperatorTypeUsageManager()
    lines = []
    for domain, opsets in sorted(_process(path, types).items()):
        for opset, ops in sorted(opsets.items()):
            entries = [f"{op}{types.get_config_entry(domain, op) or ''}" for op in sorted(ops)]
            lines.append(f"{domain};{opset};{','.join(entries)}\n")
    return "".join(lines)
