"""TorchScript files (``torch.jit.save``), traced or scripted.

``torch.export`` does not take a ScriptModule. Of the ways around, torch's converter from
TorchScript retraces the whole program twice (3.5 to 6 CPU seconds for a compact network) and loses
the module paths; the exporter for TorchScript graphs reads the graph as it is (0.7), keeps names,
and gave the same numbers. So that is what is used.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploykit.errors import SourceError, UnsupportedModelError
from deploykit.graph.ops import OPSET
from deploykit.sources.exported_names import tidy_graph
from deploykit.sources.options import LoadOptions
from deploykit.sources.quiet_export import first_lines, quiet
from deploykit.sources.torch_source import (
    TorchSource,
    flatten_outputs,
    import_torch,
    input_names,
    output_names,
    static_input_shape,
)
from deploykit.sources.torchscript_scan import check_torchscript
from deploykit.sources.weights import refuse_bad_numbers

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch


def open_torchscript(path: Path, options: LoadOptions) -> TorchSource:
    """A ScriptModule with its weights, in evaluation mode and float32.

    A TorchScript file does not say what input it takes: ``--input`` is needed.

    Raises:
        SourceError: damaged, or no ``--input``.
        UnsupportedModelError: more than one input.
        MissingDependencyError: torch is not installed.
    """
    torch = import_torch("a TorchScript file")
    if options.arch:
        raise SourceError(
            f"{path} is TorchScript; it has its architecture in it", advice="leave out --arch"
        )
    if not options.trust_code:
        check_torchscript(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = torch.jit.load(str(path), map_location="cpu")
    except (RuntimeError, ValueError, OSError) as error:
        raise SourceError(
            f"torch cannot read the TorchScript file {path}: {str(error).splitlines()[0]}",
            expected="a complete file of torch.jit.save",
        ) from error
    refuse_bad_numbers(dict(module.state_dict()), str(path))
    inputs = list(module.graph.inputs())[1:]  # the first is the module itself
    if len(inputs) != 1:
        raise UnsupportedModelError(
            f"{path} is TorchScript with {len(inputs)} inputs",
            expected="one (a TorchScript file does not say what shapes they have)",
            advice="save the network with torch.export.save, which records its inputs",
        )
    shape = static_input_shape(options.input_shape, (), what=f"the TorchScript file {path}")
    return TorchSource(module.float().eval(), (shape,))


def export_torchscript(
    module: torch.jit.ScriptModule, examples: tuple[torch.Tensor, ...]
) -> ir.Model:
    """A ScriptModule to ONNX, opset `OPSET`.

    Raises:
        SourceError: it does not run on inputs of these shapes.
        UnsupportedModelError: torch has no ONNX form for an op of it.
    """
    import onnx
    import onnx_ir as ir
    import torch

    shapes = ", ".join("x".join(map(str, e.shape)) for e in examples)
    try:
        # Not optimized: compiling it for one run would cost more than the run.
        with quiet(), torch.no_grad(), _unoptimized():
            count = len(flatten_outputs(module(*examples)))
    except (RuntimeError, TypeError) as error:
        raise SourceError(
            f"the network does not run on an input of {shapes}: {first_lines(error)}",
            advice="give the input that it takes with --input, e.g. --input 1x3x224x224",
        ) from error
    stream = io.BytesIO()
    try:
        with quiet(), torch.no_grad():
            torch.onnx.export(
                module,
                examples,
                stream,  # type: ignore[arg-type]  # this exporter takes streams too
                dynamo=False,
                opset_version=OPSET,
                do_constant_folding=False,
                input_names=input_names(len(examples)),
                output_names=output_names(count),
            )
    except Exception as error:
        raise UnsupportedModelError(
            f"torch cannot write this TorchScript network as ONNX: {first_lines(error)}",
            advice="export the original module instead: torch.export.save, or a checkpoint with "
            "--arch",
        ) from error
    model = ir.from_proto(onnx.load_from_string(stream.getvalue()))
    _adopt_scopes(model)
    tidy_graph(model)
    return model


def _unoptimized() -> contextlib.AbstractContextManager[None]:
    import torch

    optimized: Any = getattr(torch.jit, "optimized_execution")  # noqa: B009 - not in the stubs
    context: contextlib.AbstractContextManager[None] = optimized(False)
    return context


def _adopt_scopes(model: ir.Model) -> None:
    """Module paths from the exporter's node names: ``/blocks/blocks.0/conv/Conv``."""
    from deploykit.graph.provenance import MODULE_KEY

    for node in model.graph.all_nodes():
        parts = (node.name or "").strip("/").split("/")[:-1]
        path = ""
        for part in parts:
            # A child of a container is named with its container: 'blocks.0' under 'blocks'.
            last = path.rpartition(".")[2]
            nested = last and part.startswith(f"{last}.")
            path = path[: len(path) - len(last)] + part if nested else f"{path}.{part}".strip(".")
        node.metadata_props.clear()
        if path:
            node.metadata_props[MODULE_KEY] = path
