"""ONNX Runtime on an .ort file, as it was optimized when it was written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploykit.runners.onnxruntime_backend import OrtBackend
from deploykit.tensors import Array
from deploykit_onnx.rewrite_ort_file import expose_values

if TYPE_CHECKING:
    import onnxruntime


class OrtFileBackend(OrtBackend):
    """Runs one .ort file; options as of `OrtBackend`."""

    def __init__(self, path: str, options: Mapping[str, Any]) -> None:
        """Load the file.

        Raises:
            ValueError: an unknown option.
            Exception: ONNX Runtime's own, if it refuses the file.
        """
        super().__init__(path, {"optimization": "all", **options})
        self._exposed: onnxruntime.InferenceSession | None = None

    def run_all(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Every value that a node of the file's own, optimized graph makes, for one batch.

        Raises:
            ValueError: more samples than the file's batch.
        """
        if len(self._batches(inputs)) > 1:
            raise ValueError("values can be had for one batch at a time only")
        if self._exposed is None:
            self._exposed = self._open(expose_values(Path(self._path).read_bytes()))
        names = [value.name for value in self._exposed.get_outputs()]
        return dict(zip(names, self._exposed.run(names, dict(inputs)), strict=True))
