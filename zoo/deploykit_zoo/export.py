"""A checkpoint's network in a format of others: ONNX, or a program of ``torch.export``."""

from __future__ import annotations

import io
from pathlib import Path

from deploykit.errors import SourceError, UserError
from deploykit.files import write_atomically

SUFFIXES = (".onnx", ".pt2")


def export_checkpoint(path: Path, out: Path) -> None:
    """Write the network of a checkpoint, float32, batch 1, at the size of its contract.

    Args:
        path: A file that `deploykit.load` accepts as a checkpoint.
        out: ``.onnx`` gives the exported stage as `deploykit.model.Model.save` writes it; ``.pt2``
            what ``torch.export.save`` writes. The preprocessing contract and the labels have no
            place in either.

    Raises:
        UserError: another suffix.
        SourceError: the file cannot be read, or holds no torch network.
        BundleError: ``out`` cannot be written.
        MissingDependencyError: torch, or the library that has the network, is not installed.
    """
    if out.suffix not in SUFFIXES:
        raise UserError(
            f"cannot export to '{out}'",
            expected=f"a file name that ends in {' or '.join(SUFFIXES)}",
            advice="for a target's own format: deploykit convert",
        )
    if out.suffix == ".onnx":
        from deploykit.sources.load import load

        load(path).save(out)
        return
    from deploykit.sources.load import open_torch_source
    from deploykit.sources.options import LoadOptions
    from deploykit.sources.torch_export import capture_source
    from deploykit_zoo.checkpoint import import_torch

    torch = import_torch()
    program = capture_source(open_torch_source(path, LoadOptions()))
    if not isinstance(program, torch.export.ExportedProgram):
        raise SourceError(
            f"{path} is a TorchScript program", expected="a checkpoint, as 'zoo train' writes it"
        )
    stream = io.BytesIO()
    torch.export.save(program, stream)
    write_atomically(out, stream.getvalue())
