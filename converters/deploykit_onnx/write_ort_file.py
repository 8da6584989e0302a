"""The .ort flatbuffer of a model, and the operators that a reduced build of the runtime needs.

The optimizations are those that hold on any CPU: fusions, integer kernels and constant folding, not
the channel-blocked layout that is chosen for the machine that the file is written on.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from deploykit.errors import SourceError

IDENTIFIER = b"ORTM"


@dataclass(frozen=True)
class OrtFile:
    """An .ort file in memory.

    Attributes:
        data: The flatbuffer.
        operators: The text for ``--include_ops_by_config`` of ONNX Runtime's build: a line
            ``domain;opset;op,op,...`` for each domain and opset.
    """

    data: bytes
    operators: str


def write_ort_file(model: bytes) -> OrtFile:
    """The .ort form of a serialized ONNX model; the same bytes for the same model.

    Raises:
        Exception: ONNX Runtime's own, if it refuses the model (a bug of ours).
    """
    import onnxruntime

    with tempfile.TemporaryDirectory(prefix="deploykit-") as folder:
        path = Path(folder) / "model.ort"
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
        return OrtFile(path.read_bytes(), _required_operators(path))


def read_operators(path: Path) -> dict[str, dict[int, set[str]]]:
    """Domain > opset > op types of an .ort file.

    Raises:
        SourceError: the file is damaged.
    """
    from onnxruntime.tools.ort_format_model import OrtFormatModelProcessor

    found: dict[str, dict[int, set[str]]] = {}
    try:
        OrtFormatModelProcessor(str(path), found, None).process()
    except Exception as error:  # the flatbuffers package raises what the bytes lead it to
        raise SourceError(
            f"{path} is damaged: {type(error).__name__}: {error}",
            expected="an .ort file that ONNX Runtime has written",
        ) from error
    return found


def _required_operators(path: Path) -> str:
    found = read_operators(path)
    return "".join(
        f"{domain};{opset};{','.join(sorted(ops))}\n"
        for domain, opsets in sorted(found.items())
        for opset, ops in sorted(opsets.items())
    )
