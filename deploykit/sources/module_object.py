"""A module in memory (the Python API), and how another process comes by it again."""

from __future__ import annotations

import atexit
import contextlib
import copy
import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from deploykit.errors import SourceError
from deploykit.sources.options import LoadOptions
from deploykit.sources.torch_source import TorchSource, import_torch
from deploykit.sources.weights import refuse_bad_numbers
from deploykit.temporary import scratch_folder

if TYPE_CHECKING:
    from torch.export import ExportedProgram

#: The key of `SourceInfo.load_options` under which the program of a module in memory lies.
PROGRAM_KEY = "exported_program"


def open_module(source: object, options: LoadOptions, example_input: object) -> TorchSource:
    """A module as it is, on a copy in evaluation mode, float32 and on the CPU.

    Args:
        source: A ``torch.nn.Module`` or an ``ExportedProgram``.
        options: Only ``input_shape`` counts.
        example_input: A float tensor or array, or a tuple or list of them, with the batch.

    Raises:
        SourceError: no module, or no or no usable example.
    """
    torch = import_torch("a module in memory")
    if isinstance(source, torch.export.ExportedProgram):
        from deploykit.sources.exported_program import source_of_program

        return source_of_program(copy.deepcopy(source), options, origin="the exported program")
    if isinstance(source, torch.jit.ScriptModule):
        raise SourceError(
            "a ScriptModule in memory",
            expected="a torch.nn.Module, or a path",
            advice="give the original module, or torch.jit.save it and give the path",
        )
    if not isinstance(source, torch.nn.Module):
        raise SourceError(
            f"a {type(source).__name__} as a source",
            expected="a path, a torch.nn.Module or an ExportedProgram",
        )
    shapes = _shapes_of(example_input)
    if not shapes and options.input_shape:
        shapes = (options.input_shape,)
    if not shapes:
        raise SourceError(
            f"{type(source).__name__} does not say what input it takes",
            expected="an example input",
            advice="load(module, example_input=torch.zeros(1, 3, 224, 224))",
        )
    module = copy.deepcopy(source).cpu().float().eval()
    refuse_bad_numbers(module.state_dict(), type(source).__name__)
    return TorchSource(module, shapes)


def _shapes_of(example: object) -> tuple[tuple[int, ...], ...]:
    import torch

    if example is None:
        return ()
    items = example if isinstance(example, (tuple, list)) else (example,)
    shapes = []
    for index, item in enumerate(items):
        floating = (isinstance(item, torch.Tensor) and item.is_floating_point()) or (
            isinstance(item, np.ndarray) and item.dtype.kind == "f"
        )
        if not floating:
            found = getattr(item, "dtype", type(item).__name__)
            raise SourceError(
                f"example input {index} is {str(found).removeprefix('torch.')}",
                expected="a float tensor or array",
            )
        shapes.append(tuple(int(d) for d in item.shape))
    return tuple(shapes)


@functools.cache
def _until_the_end() -> contextlib.ExitStack:
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack


def store_program(program: ExportedProgram) -> dict[str, Any]:
    """Save a program where a child process can load it; it goes when this process ends.

    Returns:
        Load options that `deploykit.sources.reference.open_torch_reference` understands.
    """
    import torch

    path = _until_the_end().enter_context(scratch_folder()) / "module.pt2"
    torch.export.save(program, path)
    return {PROGRAM_KEY: str(path)}
