"""Networks of the zoo in torch: built by name, and as a predictor of arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from deploykit.accuracy.top1 import Predict
from deploykit.errors import SourceError
from deploykit.sources.architecture import build_architecture
from deploykit.sources.stored_architecture import stored_architecture
from deploykit.sources.weights import load_weights
from deploykit_zoo.checkpoint import Checkpoint, import_torch

if TYPE_CHECKING:
    import torch

LIBRARIES = ("timm", "torchvision", "deploykit")


def build_network(arch: str, arch_kwargs: Mapping[str, Any]) -> torch.nn.Module:
    """An untrained network.

    Args:
        arch: ``timm/NAME``, ``torchvision/NAME`` or ``deploykit/NAME``.
        arch_kwargs: What its constructor is given.

    Raises:
        SourceError: no such library, no such network, or it does not take these arguments.
        MissingDependencyError: torch, or the library, is not installed.
    """
    library, _, name = arch.partition("/")
    if library not in LIBRARIES or not name:
        known = ", ".join(f"{library}/NAME" for library in LIBRARIES)
        raise SourceError(f"the architecture '{arch}'", expected=f"one of {known}")
    import_torch()
    return build_architecture(arch, arch_kwargs).module


def network_of_checkpoint(
    checkpoint: Checkpoint, origin: str = "the checkpoint"
) -> torch.nn.Module:
    """The trained network, in float32 and in evaluation mode.

    Args:
        checkpoint: Its weights and what they are of.
        origin: The file, for messages.

    Raises:
        SourceError: the weights do not fit the architecture (all that do not are listed), they are
            no finite numbers, or it cannot be built.
        MissingDependencyError: the library that has it is not installed.
    """
    network = build_network(*stored_architecture(checkpoint.arch, checkpoint.arch_kwargs, origin))
    load_weights(network, checkpoint.state_dict, origin=origin, arch=checkpoint.arch)
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
