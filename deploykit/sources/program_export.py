"""TorchScript and .pt2 to ONNX, in a child process (`deploykit.sources.program_child`)."""

from __future__ import annotations

import sys
from pathlib import Path

from deploykit.sources.options import LoadOptions
from deploykit.sources.program_child import answer


def export_torch_program(path: Path, options: LoadOptions) -> bytes:
    """The program as a serialized ``ModelProto``.

    Raises:
        SourceError, UnsupportedModelError, MissingDependencyError: as `deploykit.load`.
    """
    import onnx_ir as ir

    from deploykit.sources.load import open_torch_source
    from deploykit.sources.torch_export import capture_source, export_captured

    opened = open_torch_source(path, options)
    model = export_captured(capture_source(opened), opened.input_shapes)
    data: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
    return data


if __name__ == "__main__":
    sys.exit(answer(sys.argv[1:], export_torch_program))
