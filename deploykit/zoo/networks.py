"""Networks of the zoo in torch: built by name, and as a predictor of arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from deploykit.errors import MissingDependencyError, SourceError
from deploykit.zoo.checkpoint import Checkpoint
from deploykit.zoo.evaluate import Predict

if TYPE_CHECKING:
    import torch


def build_network(arch: str, arch_kwargs: Mapping[str, Any]) -> torch.nn.Module:
    """An untrained network.

    Args:
        arch: ``timm/NAME`` or ``torchvision/NAME``.
        arch_kwargs: What its constructor is given.

    Raises:
        SourceError: no such library, no such network, or it does not take these arguments.
        MissingDependencyError: the library is not installed.
    """
    library, _, name = arch.partition("/")
    if library not in ("timm", "torchvision") or not name:
        raise SourceError(f"the architecture '{arch}'", expected="timm/NAME or torchvision/NAME")
    try:
        create = _constructor(library)
    except ImportError as error:
        raise MissingDependencyError(library, needed_for=arch, extra="zoo") from error
    try:
        return create(name, **arch_kwargs)
    except (RuntimeError, ValueError, TypeError) as error:
        raise SourceError(
            f"{library} cannot build '{name}' with {dict(arch_kwargs)}: {error}"
        ) from error


def _constructor(library: str) -> Callable[..., torch.nn.Module]:
    """The library's function from a name and keyword arguments to a network."""
    if library == "timm":
        import timm

        return cast("Callable[..., torch.nn.Module]", timm.create_model)
    import torchvision

    return cast("Callable[..., torch.nn.Module]", torchvision.models.get_model)


def network_of_checkpoint(checkpoint: Checkpoint) -> torch.nn.Module:
    """The trained network, in float32 and in evaluation mode.

    Raises:
        SourceError: the weights do not fit the architecture, or it cannot be built.
        MissingDependencyError: the library that has it is not installed.
    """
    network = build_network(checkpoint.arch, checkpoint.arch_kwargs)
    try:
        network.load_state_dict(dict(checkpoint.state_dict))
    except RuntimeError as error:
        raise SourceError(f"the weights do not fit {checkpoint.arch}: {error}") from error
    return network.eval()


def torch_predictor(network: torch.nn.Module) -> Predict:
    """The network, in evaluation mode, as a function of arrays.

    Returns:
        From float32 of shape (n, channels, height, width) to float32 of shape (n, classes).
    """
    import torch

    network.eval()

    def predict(tensors: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        with torch.inference_mode():
            logits: npt.NDArray[Any] = network(torch.from_numpy(tensors)).numpy()
        return logits

    return predict
