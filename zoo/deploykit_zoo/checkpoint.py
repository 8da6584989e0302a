"""deploykit's checkpoint: weights with all that a conversion has to know about them.

A ``torch.save``d dict that ``torch.load(weights_only=True)`` reads, with these keys:

    format        "deploykit.checkpoint/1"
    arch          where the network's code is, e.g. "timm/ghostnet_050"
    arch_kwargs   what its constructor is given, e.g. {"num_classes": 10}
    state_dict    its tensors; floating-point ones may be stored as float16
    preprocess    `Preprocess.to_dict`
    labels        name of each class
    calibration   uint8 NHWC tensor: training images, before `Preprocess.apply`
    metrics       {"top1": from 0 to 1, "test_images": how many it was measured on}
    training      the command and the hyperparameters that gave the weights

There is no time and no path of the machine in it: the same content gives the same bytes.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploykit.errors import MissingDependencyError, SourceError
from deploykit.files import write_atomically
from deploykit.preprocess import Preprocess

if TYPE_CHECKING:
    import torch

CHECKPOINT_FORMAT = "deploykit.checkpoint/1"

_KINDS: dict[str, type] = {
    "arch": str,
    "arch_kwargs": dict,
    "state_dict": dict,
    "preprocess": dict,
    "labels": list,
    "metrics": dict,
    "training": dict,
}


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The content of a checkpoint file.

    Attributes:
        arch: Where the network's code is: ``timm/NAME`` or ``torchvision/NAME``.
        arch_kwargs: What its constructor is given.
        state_dict: Its tensors, as stored: `half_precision_state` has most of them in float16.
        preprocess: From an image to the input tensor.
        labels: Name of each class.
        calibration: uint8 tensor of shape (n, height, width, channels): training images.
        metrics: ``top1`` from 0 to 1 and ``test_images``.
        training: The command and the hyperparameters.
    """

    arch: str
    arch_kwargs: Mapping[str, Any]
    state_dict: Mapping[str, torch.Tensor]
    preprocess: Preprocess
    labels: tuple[str, ...]
    calibration: torch.Tensor
    metrics: Mapping[str, Any]
    training: Mapping[str, Any]


def half_precision_state(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors as a checkpoint stores them.

    Weights (two axes and more) become float16. Vectors stay float32: they are batch norm's
    statistics and biases, next to nothing in size, and a small variance would lose most of its
    digits among float16's subnormals. So does a weight with a value beyond float16's range.
    """
    stored = {}
    for name, tensor in state_dict.items():
        kept = tensor.detach().cpu()
        if kept.is_floating_point() and kept.ndim >= 2:
            half = kept.half()
            kept = half if bool(half.isfinite().all()) else kept
        stored[name] = kept.contiguous().clone()
    return stored


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint to a temporary sibling, then rename it over ``path``.

    Raises:
        BundleError: ``path`` cannot be written; it is then as it was.
    """
    content = {
        "format": CHECKPOINT_FORMAT,
        "arch": checkpoint.arch,
        "arch_kwargs": dict(checkpoint.arch_kwargs),
        "state_dict": dict(checkpoint.state_dict),
        "preprocess": checkpoint.preprocess.to_dict(),
        "labels": list(checkpoint.labels),
        "calibration": checkpoint.calibration,
        "metrics": dict(checkpoint.metrics),
        "training": dict(checkpoint.training),
    }
    write_atomically(path, torch_bytes(content))


def read_checkpoint(path: Path) -> Checkpoint:
    """Read what `write_checkpoint` wrote, without running any code from the file.

    Raises:
        SourceError: no such file, no torch file, or not this format.
        MissingDependencyError: torch is not installed.
    """
    content = load_torch_file(path)
    if not isinstance(content, dict) or content.get("format") != CHECKPOINT_FORMAT:
        found = content.get("format", "no format") if isinstance(content, dict) else type(content)
        raise SourceError(
            f"{path} has {found!r} where a checkpoint has its format",
            expected=CHECKPOINT_FORMAT,
            advice="make one with: deploykit zoo train FAMILY --out FILE",
        )
    wrong = [key for key, kind in _KINDS.items() if not isinstance(content.get(key), kind)]
    if not isinstance(content.get("calibration"), import_torch().Tensor):
        wrong.append("calibration")
    if wrong:
        raise SourceError(
            f"{path} lacks {', '.join(wrong)}, or has something else in place of it",
            expected=f"the keys {', '.join(_KINDS)} and calibration",
        )
    return Checkpoint(
        arch=content["arch"],
        arch_kwargs=content["arch_kwargs"],
        state_dict=content["state_dict"],
        preprocess=Preprocess.from_dict(content["preprocess"]),
        labels=tuple(content["labels"]),
        calibration=content["calibration"],
        metrics=content["metrics"],
        training=content["training"],
    )


def torch_bytes(content: object) -> bytes:
    """What ``torch.save`` writes, the same bytes under whatever file name."""
    torch = import_torch()
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def load_torch_file(path: Path) -> Any:
    """``torch.load`` of tensors and plain values only, on the CPU.

    Raises:
        SourceError: no such file, or torch cannot read it.
        MissingDependencyError: torch is not installed.
    """
    torch = import_torch()
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise SourceError(f"there is no {path}") from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        headline = (str(error).splitlines() or [type(error).__name__])[0]
        raise SourceError(
            f"{path} cannot be read by torch: {headline}",
            expected="a file of torch.save with tensors and plain values only",
        ) from error


def import_torch() -> Any:
    """The package ``torch``.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError("torch", needed_for="the zoo", extra="zoo") from error
    return torch
