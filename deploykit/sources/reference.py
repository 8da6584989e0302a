"""The float reference of a torch source: the same source again, run by torch itself.

It is what the ``torch`` runner drives, in a separate process. No ONNX is involved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deploykit.sources.load import open_torch_source
from deploykit.sources.module_object import PROGRAM_KEY
from deploykit.sources.options import LoadOptions
from deploykit.sources.torch_source import flatten_outputs, output_names

FloatArray = npt.NDArray[np.float32]


def open_torch_reference(
    path: str, load_options: Mapping[str, Any]
) -> Callable[..., dict[str, FloatArray]]:
    """Load a source and return it as a function.

    Args:
        path: `SourceInfo.path`; empty for a module in memory.
        load_options: `SourceInfo.load_options`.

    Returns:
        A function from one float32 array for each input (images as NCHW), in order, to float32
        arrays by the names and in the order of the exported graph's outputs. Evaluation mode,
        float32, no gradients.

    Raises:
        SourceError: as `deploykit.load`; the file may have changed since.
        MissingDependencyError: a package is not installed.
    """
    if path:
        source = open_torch_source(Path(path), LoadOptions.from_dict(load_options))
    else:
        source = open_torch_source(Path(load_options[PROGRAM_KEY]), LoadOptions())
    import torch

    program: Any = source.program
    network = program.module() if isinstance(program, torch.export.ExportedProgram) else program

    def run(*inputs: FloatArray) -> dict[str, FloatArray]:
        tensors = [torch.from_numpy(np.array(i, dtype=np.float32, order="C")) for i in inputs]
        with torch.no_grad():
            results = flatten_outputs(network(*tensors))
        names = output_names(len(results))
        return {n: r.float().numpy() for n, r in zip(names, results, strict=True)}

    return run
