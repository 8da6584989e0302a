"""A torch program to an ONNX model, in memory.

``torch.export`` captures the module (not strict: the Python code runs once on fake tensors), and
``torch.onnx.export`` translates what was captured. Nothing is optimized here: that is the passes'
work. The decomposition that the exporter runs first is omitted where it would change nothing
(`torch_translations`).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from deploykit.errors import DeploykitError, SourceError, UnsupportedModelError
from deploykit.graph.ops import OPSET
from deploykit.sources.exported_names import tidy_graph
from deploykit.sources.quiet_export import first_lines, quiet
from deploykit.sources.torchscript import export_torchscript

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch
    from torch.export import ExportedProgram

    from deploykit.sources.torch_source import TorchSource


def capture_program(module: torch.nn.Module, examples: tuple[torch.Tensor, ...]) -> ExportedProgram:
    """``torch.export`` of a module in evaluation mode on the CPU.

    Args:
        module: The network; its parameters no longer require gradients afterwards.
        examples: One float32 tensor an input; their shapes become the program's.

    Raises:
        SourceError: the module does not run on inputs of these shapes.
        UnsupportedModelError: it runs, but cannot be captured: its control flow depends on data.
    """
    import torch

    for parameter in module.parameters():
        parameter.requires_grad_(False)
    try:
        with quiet(), torch.no_grad():
            return torch.export.export(module, examples, strict=False)
    except Exception as error:
        where = _module_path_of(error, module)
        _refuse_if_it_does_not_run(module, examples, where)
        raise UnsupportedModelError(
            f"torch.export cannot capture the network{where}: {first_lines(error)}",
            expected="no branches or shapes that depend on the values of tensors",
            advice="replace data-dependent code (if on a tensor, .item(), nonzero ...) by tensor "
            "ops, or export that part away",
        ) from error


def export_program(program: ExportedProgram) -> ir.Model:
    """An exported program to ONNX, opset `OPSET`. The program is used up: it is rewritten.

    Inputs are called ``input`` (or ``input_0`` ...), outputs ``output`` (or ``output_0`` ...), all
    other values as torch calls them (``conv2d_1``), weights by their dotted names. Each node bears
    its module path and source line (`deploykit.graph.provenance`).

    Raises:
        UnsupportedModelError: torch has no ONNX form for an op of it.
    """
    import torch

    from deploykit.graph.provenance import adopt_torch_metadata
    from deploykit.sources.functional_program import make_functional
    from deploykit.sources.torch_translations import needs_no_decomposition, translations

    direct = make_functional(program) and needs_no_decomposition(program)
    if direct:
        # The exporter asks the program to decompose itself; this one has nothing to decompose.
        program.run_decompositions = lambda *_: program
    try:
        with quiet(), torch.no_grad():
            exported = torch.onnx.export(
                program,
                (),
                dynamo=True,
                opset_version=OPSET,
                optimize=False,
                verify=False,
                verbose=False,
                custom_translation_table=translations() if direct else None,
            )
    except Exception as error:
        raise UnsupportedModelError(
            f"torch cannot write the network as ONNX: {first_lines(_innermost(error))}",
            advice="replace that op in the network",
        ) from error
    assert exported is not None
    model = exported.model
    adopt_torch_metadata(model)
    tidy_graph(model)
    return model


def capture_source(source: TorchSource) -> torch.nn.Module | ExportedProgram:
    """What torch can run, captured as a program; TorchScript is one already.

    Raises:
        SourceError, UnsupportedModelError: as `capture_program`.
    """
    import torch

    program = source.program
    if isinstance(program, torch.export.ExportedProgram | torch.jit.ScriptModule):
        return program
    return capture_program(program, example_inputs(source.input_shapes))


def export_captured(
    captured: torch.nn.Module | ExportedProgram, shapes: Sequence[Sequence[int]]
) -> ir.Model:
    """What `capture_source` gave to ONNX; it is used up by that.

    Raises:
        SourceError: a ScriptModule does not run on its input.
        UnsupportedModelError: it cannot be written as ONNX.
    """
    import torch

    if isinstance(captured, torch.export.ExportedProgram):
        return export_program(captured)
    assert isinstance(captured, torch.jit.ScriptModule)
    return export_torchscript(captured, example_inputs(shapes))


def example_inputs(shapes: Sequence[Sequence[int]]) -> tuple[torch.Tensor, ...]:
    """Inputs of these shapes, float32, the same at each call; their values do not matter."""
    import torch

    return tuple(torch.linspace(-1, 1, _elements(shape)).reshape(tuple(shape)) for shape in shapes)


def _elements(shape: Sequence[int]) -> int:
    count = 1
    for dimension in shape:
        count *= dimension
    return count


def _refuse_if_it_does_not_run(
    module: torch.nn.Module, examples: tuple[torch.Tensor, ...], where: str
) -> None:
    import torch

    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module(*examples)
    except DeploykitError:
        raise
    except Exception as error:
        where = _module_path_of(error, module) or where
        shapes = ", ".join("x".join(map(str, e.shape)) for e in examples)
        raise SourceError(
            f"the network does not run on an input of {shapes}{where}: {first_lines(error)}",
            advice="give the input that it takes with --input, e.g. --input 1x3x224x224",
        ) from error


def _module_path_of(error: BaseException, module: torch.nn.Module) -> str:
    """`` in module 'blocks.3'``: the innermost module whose forward was running."""
    import torch

    paths = {id(m): name for name, m in module.named_modules()}
    found = ""
    trace = error.__traceback__
    while trace is not None:
        owner = trace.tb_frame.f_locals.get("self")
        if isinstance(owner, torch.nn.Module):
            found = paths.get(id(owner), "") or found
        trace = trace.tb_next
    return f" in module '{found}'" if found else ""


def _innermost(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
