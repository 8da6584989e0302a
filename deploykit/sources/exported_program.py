"""Exported programs: files of ``torch.export.save`` (.pt2)."""

from __future__ import annotations

import contextlib
import logging
import pickle
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploykit.errors import SourceError, UnsupportedModelError
from deploykit.sources.options import LoadOptions
from deploykit.sources.program_archive import check_program_archive, weights_only_enforced
from deploykit.sources.torch_source import TorchSource, import_torch
from deploykit.sources.weights import refuse_bad_numbers

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def open_exported_program(path: Path, options: LoadOptions) -> TorchSource:
    """A program with its weights. Nothing in the file is run, unless ``trust_code`` is set.

    Raises:
        SourceError: damaged, made by another version of torch, made for another input shape, or
            with something in it that would run (`deploykit.sources.program_archive`).
        UnsupportedModelError: with dynamic shapes that no option pins.
        MissingDependencyError: torch is not installed.
    """
    torch = import_torch("an exported program")
    if options.arch:
        raise SourceError(
            f"{path} is an exported program; it has its architecture in it",
            advice="leave out --arch",
        )
    guard: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if not options.trust_code:
        check_program_archive(path)
        guard = weights_only_enforced()
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with guard, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.load(path)
        # Guards are Python text that torch would run; for static shapes they say nothing.
        program._guards_code = []
    except pickle.UnpicklingError as error:
        raise SourceError(
            f"the exported program {path} holds pickled objects besides tensors; "
            "they were not loaded",
            expected="tensors and ops only",
            advice="save it again from the module: torch.export.save(torch.export.export(model, "
            "(example,)), FILE); or --trust-code, if you made the file yourself",
        ) from error
    except Exception as error:
        raise SourceError(
            f"torch {torch.__version__} cannot read the exported program {path}: "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}",
            advice="save it again with this version of torch: torch.export.save(program, FILE)",
        ) from error
    finally:
        logging.disable(disabled)
    return source_of_program(program, options, origin=str(path))


def source_of_program(
    program: ExportedProgram, options: LoadOptions, *, origin: str
) -> TorchSource:
    """The same, from a program in memory."""
    import torch

    refuse_bad_numbers(dict(program.state_dict), origin)
    refuse_bad_numbers(
        {k: v for k, v in program.constants.items() if isinstance(v, torch.Tensor)}, origin
    )
    shapes = [_static_shape(i, v, origin) for i, v in enumerate(_user_inputs(program, origin))]
    if not shapes:
        raise SourceError(f"{origin} has no inputs")
    if options.input_shape and tuple(options.input_shape) != shapes[0]:
        raise SourceError(
            f"{origin} was exported for the input {'x'.join(map(str, shapes[0]))}",
            expected=f"that, not --input {'x'.join(map(str, options.input_shape))}",
            advice="export it again with an example input of the shape that you want",
        )
    return TorchSource(program, tuple(shapes))


def _user_inputs(program: ExportedProgram, origin: str) -> list[Any]:
    import torch

    names = list(program.graph_signature.user_inputs)
    by_name = {n.name: n for n in program.graph.nodes if n.op == "placeholder"}
    values = [by_name[n].meta["val"] for n in names if isinstance(n, str) and n in by_name]
    for index, value in enumerate(values):
        if not isinstance(value, torch.Tensor) or value.dtype != torch.float32:
            found = getattr(value, "dtype", type(value).__name__)
            raise SourceError(
                f"input {index} of {origin} is {str(found).removeprefix('torch.')}",
                expected="float32 tensors",
                advice="move what needs other inputs out of the network",
            )
    return values


def _static_shape(index: int, value: Any, origin: str) -> tuple[int, ...]:
    dynamic = [i for i, d in enumerate(value.shape) if not isinstance(d, int)]
    if dynamic:
        raise UnsupportedModelError(
            f"input {index} of {origin} has a dynamic size in dimension "
            f"{', '.join(map(str, dynamic))}: {tuple(value.shape)}",
            expected="static shapes",
            advice="export it without dynamic_shapes",
        )
    return tuple(int(d) for d in value.shape)
