"""The state of a training between two epochs, as a file that another run takes up.

A ``torch.save``d dict: format, fingerprint of the training, epochs done, network, optimizer.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from deploykit.errors import SourceError
from deploykit.files import write_atomically
from deploykit.sources.weights import compare_weights
from deploykit_zoo.checkpoint import load_torch_file, torch_bytes

if TYPE_CHECKING:
    import torch

STATE_FORMAT = "deploykit.training/1"

_KINDS: dict[str, type] = {"network": dict, "optimizer": dict, "epochs_done": int}


def write_state(
    path: Path,
    fingerprint: str,
    epochs_done: int,
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Write the state to a temporary sibling, then rename it over ``path``.

    Args:
        path: Where.
        fingerprint: Of all that decides what the training gives.
        epochs_done: Epochs that the network has seen.
        network: In any state.
        optimizer: Of its parameters.

    Raises:
        BundleError: ``path`` cannot be written; it is then as it was.
    """
    content = {
        "format": STATE_FORMAT,
        "fingerprint": fingerprint,
        "epochs_done": epochs_done,
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    write_atomically(path, torch_bytes(content))


def refuse_state(path: Path, fingerprint: str, network: torch.nn.Module) -> str | None:
    """Why a file is no state of a training, in words that follow its name; None if it is."""
    try:
        content = load_torch_file(path)
    except SourceError as error:
        return f"is damaged ({error.found})"
    if not isinstance(content, dict) or content.get("format") != STATE_FORMAT:
        return "is no state of a training"
    if content.get("fingerprint") != fingerprint:
        return "is of another training (other data, seed, epochs or recipe)"
    wrong = [key for key, kind in _KINDS.items() if not isinstance(content.get(key), kind)]
    if wrong:
        return f"is damaged (it lacks {', '.join(wrong)})"
    if compare_weights(content["network"], network):
        return "holds weights of another version of the network"
    return None


def load_state(path: Path, network: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Give network and optimizer the state of a file that `refuse_state` has let through.

    Returns:
        Number of epochs that are done.
    """
    content = load_torch_file(path)
    network.load_state_dict(content["network"])
    optimizer.load_state_dict(content["optimizer"])
    return int(content["epochs_done"])
