"""Weights in safetensors, with an architecture from the options."""

from __future__ import annotations

from pathlib import Path

from deploykit.errors import MissingDependencyError, SourceError
from deploykit.sources.checkpoint import CheckpointContent
from deploykit.sources.checkpoint_source import network_of
from deploykit.sources.options import LoadOptions
from deploykit.sources.torch_source import TorchSource, import_torch


def open_safetensors(path: Path, options: LoadOptions) -> TorchSource:
    """The network of ``--arch`` with the weights of a safetensors file.

    Raises:
        SourceError: damaged, no ``--arch``, or the weights do not fit it.
        MissingDependencyError: torch, safetensors or the architecture's library is missing.
    """
    import_torch("a safetensors file")
    if options.key:
        raise SourceError(
            f"{path} is a safetensors file; it has no entries to choose from",
            advice="leave out --key",
        )
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise MissingDependencyError(
            "safetensors", needed_for="a safetensors file", extra="torch"
        ) from error
    try:
        state_dict = load_file(path, device="cpu")
    except (SafetensorError, OSError, ValueError) as error:
        raise SourceError(f"{path} is no complete safetensors file: {error}") from error
    if not state_dict:
        raise SourceError(f"{path} has no tensors in it", expected="the weights of a network")
    return network_of(CheckpointContent(state_dict), options, origin=str(path))
