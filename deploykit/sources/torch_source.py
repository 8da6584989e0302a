"""A source that torch can run, loaded: what is exported, and what the reference runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deploykit.errors import MissingDependencyError, SourceError
from deploykit.preprocess import ContractOrigin, Preprocess
from deploykit.tensors import Array

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram


@dataclass(frozen=True, eq=False)
class TorchSource:
    """A network with its weights.

    Attributes:
        program: A module in evaluation mode and float32, a ScriptModule, or an exported program.
        input_shapes: One static shape an input, images as NCHW.
        arch: The architecture's name, where there is one.
        preprocess: The contract of its image input, where known.
        preprocess_origin: Where the contract comes from.
        labels: Class names in the order of the output, where known.
        calibration_sample: uint8 (n, H, W, C) images, or None.
        identified: What was found out about the architecture from the weights, for the user;
            empty where the file or the user says what it is.
    """

    program: torch.nn.Module | ExportedProgram
    input_shapes: tuple[tuple[int, ...], ...]
    arch: str = ""
    preprocess: Preprocess | None = None
    labels: tuple[str, ...] | None = None
    calibration_sample: Array | None = None
    preprocess_origin: ContractOrigin = ContractOrigin.UNKNOWN
    identified: str = ""


def import_torch(needed_for: str) -> Any:
    """The package ``torch``.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import torch
    except ImportError as error:
        if error.name != "torch":  # torch is there, but broken: its own words say more
            raise
        raise MissingDependencyError("torch", needed_for=needed_for, extra="torch") from error
    return torch


def input_names(count: int) -> list[str]:
    """``input``, or ``input_0``, ``input_1`` ... if there are several."""
    return ["input"] if count == 1 else [f"input_{i}" for i in range(count)]


def output_names(count: int) -> list[str]:
    """``output``, or ``output_0``, ``output_1`` ... if there are several."""
    return ["output"] if count == 1 else [f"output_{i}" for i in range(count)]


def flatten_outputs(result: object) -> list[torch.Tensor]:
    """The tensors that a network returned, in the order of the exported graph's outputs.

    Tuples and lists in order, dicts in the order of insertion, nested; None is omitted.

    Raises:
        SourceError: something that is neither a tensor nor a container of them.
    """
    import torch

    if result is None:
        return []
    if isinstance(result, torch.Tensor):
        return [result]
    if isinstance(result, dict):
        return [t for value in result.values() for t in flatten_outputs(value)]
    if isinstance(result, (tuple, list)):
        return [t for value in result for t in flatten_outputs(value)]
    raise SourceError(
        f"the network returns a {type(result).__name__}",
        expected="a tensor, or a tuple, list or dict of tensors",
        advice="wrap it in a module whose forward returns the tensors",
    )


def static_input_shape(
    given: tuple[int, ...], own: tuple[int, ...], *, what: str
) -> tuple[int, ...]:
    """The shape to export for: the user's, else the source's own.

    Raises:
        SourceError: neither is known.
    """
    shape = given or own
    if not shape:
        raise SourceError(
            f"{what} does not say what input it takes",
            expected="an input shape",
            advice="give it, e.g. --input 1x3x224x224",
        )
    return shape
