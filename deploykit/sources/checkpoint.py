"""Checkpoints: files of ``torch.save`` with weights, and with what else deploykit finds in them.

Where a file holds several sets of weights, they are taken in this order (`KEY_ORDER`; averaged
weights come first, since they are what training scripts validate and publish):

    state_dict_ema, model_ema, ema_state_dict, params_ema, ema,
    state_dict, model_state_dict, model_state, model, network, net, params, weights

then the only entry that is a state dict, if there is just one. ``--key`` overrides it.

Two formats carry more than weights: deploykit's own (``"format": "deploykit.checkpoint/1"``) and
that of timm's training script (``arch``, ``state_dict``, ``args``). Loading is always
``weights_only=True``; nothing in here ever falls back to loading that runs code.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploykit.errors import ContractError, SourceError
from deploykit.limits import SMALL_ARCHIVE_BYTES
from deploykit.preprocess import Preprocess
from deploykit.sources.torch_source import import_torch
from deploykit.tensors import Array

if TYPE_CHECKING:
    import torch

FORMAT = "deploykit.checkpoint/1"

KEY_ORDER = (
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "params_ema",
    "ema",
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "network",
    "net",
    "params",
    "weights",
)

#: Tied weights are views of the same bytes.
_VIEWS_OF_A_BYTE = 4

# Bookkeeping of averaged models that stands among their weights.
_BOOKKEEPING = frozenset({"n_averaged"})


@dataclass(frozen=True, eq=False)
class CheckpointContent:
    """What a checkpoint holds.

    Attributes:
        state_dict: Name → tensor, as stored.
        key: The entry that the weights were taken from; empty if the file is just weights.
        arch: The architecture that it names; empty if none.
        arch_kwargs: Arguments of the constructor that it gives.
        input_size: (channels, height, width) that it gives; empty if none.
        preprocess: Its preprocessing contract, in full.
        preprocess_config: Single settings of one, in timm's words (mean, std, crop_pct ...).
        labels: Its class names.
        calibration_sample: uint8 (n, H, W, C) images.
    """

    state_dict: Mapping[str, torch.Tensor]
    key: str = ""
    arch: str = ""
    arch_kwargs: Mapping[str, Any] = field(default_factory=dict)
    input_size: tuple[int, ...] = ()
    preprocess: Preprocess | None = None
    preprocess_config: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None
    calibration_sample: Array | None = None


def load_checkpoint(path: Path, key: str = "") -> CheckpointContent:
    """Read a checkpoint without running any code from it.

    Args:
        path: A file of ``torch.save``.
        key: The entry that holds the weights, dotted if nested; empty for the order above.

    Raises:
        SourceError: torch cannot read it, or there are no weights in it, or not under ``key``.
        MissingDependencyError: torch is not installed.
    """
    return checkpoint_of(load_data(path), key, origin=str(path))


def load_data(path: Path) -> object:
    """``torch.load`` of tensors and plain data, on the CPU.

    Raises:
        SourceError: damaged, or with something else in it.
        MissingDependencyError: torch is not installed.
    """
    torch = import_torch("a checkpoint")
    try:
        with _plain_data_allowed():
            content: object = torch.load(path, map_location="cpu", weights_only=True)
        claimed = _claimed_bytes(content)
    except pickle.UnpicklingError as error:
        raise SourceError(
            f"{path} holds more than tensors and plain data: {_headline(error)}",
            expected="weights only; it was not executed",
            advice="save the weights alone: torch.save(model.state_dict(), FILE)",
        ) from error
    except Exception as error:  # torch raises what it stumbles over
        raise SourceError(
            f"torch cannot read {path}: {_headline(error)}",
            expected="a complete file of torch.save",
        ) from error
    # A view of one element may say that it has any shape (a stride of 0).
    if claimed > _VIEWS_OF_A_BYTE * path.stat().st_size + SMALL_ARCHIVE_BYTES:
        raise SourceError(
            f"the tensors in {path} claim {claimed:,} bytes, and the file has "
            f"{path.stat().st_size:,}",
            expected="tensors whose elements are in the file",
            advice="save them as they are: tensor.contiguous()",
        )
    return content


def _claimed_bytes(content: object) -> int:
    """What all tensors in nested containers would take if each element were stored."""
    import torch

    total, inner, seen = 0, [content], set()
    while inner:
        value = inner.pop()
        if isinstance(value, torch.Tensor):
            total += value.numel() * value.element_size()
        elif isinstance(value, (Mapping, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            inner += value.values() if isinstance(value, Mapping) else value
    return total


@contextlib.contextmanager
def _plain_data_allowed() -> Iterator[None]:
    # argparse.Namespace and numpy scalars hold data and run nothing; training scripts save them
    # beside the weights (timm: args; many: a best accuracy).
    import argparse

    import numpy as np
    import torch

    scalar: Any = np.float32(0).__reduce__()[0]  # its module moved between numpy 1 and 2
    plain: list[Any] = [
        argparse.Namespace,
        np.dtype,
        (scalar, "numpy._core.multiarray.scalar"),
        (scalar, "numpy.core.multiarray.scalar"),
        *(type(np.dtype(t)) for t in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "?")),
    ]
    with torch.serialization.safe_globals(plain):
        yield


def _headline(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    # torch's own advice (set weights_only to False ...) is not ours: cut it off.
    return next((line for line in lines if "weights_only" not in line), type(error).__name__)


def checkpoint_of(content: object, key: str, *, origin: str) -> CheckpointContent:
    """Find the weights, and all that travels with them, in what a file held.

    Raises:
        SourceError: as `load_checkpoint`.
    """
    if not isinstance(content, Mapping):
        raise SourceError(
            f"{origin} holds a {type(content).__name__}",
            expected="a state_dict, or a dict that holds one",
        )
    if content.get("format") == FORMAT and not key:
        return _own_checkpoint(content, origin)
    state_dict, used = _find_weights(content, key, origin)
    args = _arguments_of(content)
    arch = content.get("arch")
    size = args.get("input_size") or ()
    own_kwargs = content.get("arch_kwargs")
    return CheckpointContent(
        state_dict=state_dict,
        key=used,
        arch=arch if isinstance(arch, str) else "",
        arch_kwargs={
            **{k: args[k] for k in ("num_classes", "in_chans") if args.get(k)},
            **(args["model_kwargs"] if isinstance(args.get("model_kwargs"), Mapping) else {}),
            **(own_kwargs if isinstance(own_kwargs, Mapping) else {}),
        },
        labels=_labels_of(content),
        input_size=tuple(int(n) for n in size) if len(size) == 3 else (),
        preprocess_config={
            k: args[k] for k in ("mean", "std", "interpolation", "crop_pct") if args.get(k)
        },
    )


def _labels_of(content: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Class names beside weights of no declared format: a list of strings, or index → name."""
    labels = content.get("labels", content.get("classes"))
    if isinstance(labels, Mapping) and list(labels) == list(range(len(labels))):
        labels = list(labels.values())
    if isinstance(labels, (list, tuple)) and labels and all(isinstance(n, str) for n in labels):
        return tuple(labels)
    return None


def _arguments_of(content: Mapping[str, Any]) -> Mapping[str, Any]:
    # timm's script saves its parsed command line; only beside an arch do these names mean that.
    args = content.get("args")
    if not isinstance(content.get("arch"), str) or args is None:
        return {}
    values = dict(args) if isinstance(args, Mapping) else dict(vars(args))
    if values.get("img_size") and not values.get("input_size"):
        values["input_size"] = (values.get("in_chans") or 3, values["img_size"], values["img_size"])
    return values


def _find_weights(
    content: Mapping[str, Any], key: str, origin: str
) -> tuple[Mapping[str, torch.Tensor], str]:
    if key:
        return _entry(content, key, origin), key
    if is_state_dict(content):
        return content, ""
    for name in KEY_ORDER:
        if is_state_dict(content.get(name)):
            return content[name], name
    others = [k for k, v in content.items() if is_state_dict(v)]
    if len(others) == 1:
        return content[others[0]], str(others[0])
    if others:
        raise SourceError(
            f"{origin} has several entries that could be its weights: {', '.join(others)}",
            advice=f"choose one, e.g. --key {others[0]}",
        )
    listed = ", ".join(f"{k} ({type(v).__name__})" for k, v in list(content.items())[:8])
    raise SourceError(
        f"{origin} has no weights; it holds {listed or 'nothing'}",
        expected="a state_dict, or a dict that holds one",
    )


def _entry(content: Mapping[str, Any], key: str, origin: str) -> Mapping[str, torch.Tensor]:
    value: Any = content.get(key)
    if value is None:
        value = content
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
    if value is None:
        raise SourceError(
            f"{origin} has no entry '{key}'",
            expected=f"one of {', '.join(str(k) for k in list(content)[:12])}",
        )
    if not is_state_dict(value):
        raise SourceError(
            f"the entry '{key}' of {origin} is a {type(value).__name__}, not a state_dict",
            expected="a dict of names and tensors",
        )
    return dict(value)


def is_state_dict(value: object) -> bool:
    """Whether a value is a non-empty mapping of names to tensors."""
    import torch

    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in value.items())
    )


def _own_checkpoint(content: Mapping[str, Any], origin: str) -> CheckpointContent:
    import torch

    state_dict = content.get("state_dict")
    arch, kwargs = content.get("arch"), content.get("arch_kwargs", {})
    preprocess, labels = content.get("preprocess"), content.get("labels")
    sample = content.get("calibration")
    wrong = [
        name
        for name, good in (
            ("state_dict", is_state_dict(state_dict)),
            ("arch", isinstance(arch, str)),
            ("arch_kwargs", isinstance(kwargs, Mapping)),
            ("preprocess", preprocess is None or isinstance(preprocess, Mapping)),
            ("labels", labels is None or all(isinstance(n, str) for n in labels)),
            (
                "calibration",
                sample is None
                or (
                    isinstance(sample, torch.Tensor)
                    and sample.dtype == torch.uint8
                    and sample.ndim == 4
                ),
            ),
        )
        if not good
    ]
    if wrong:
        raise SourceError(
            f"{origin} says it is a {FORMAT}, but its {', '.join(wrong)} is not as that has it",
            expected="arch: str; arch_kwargs, preprocess: dicts; state_dict: tensors; labels: "
            "strings; calibration: uint8 (n, H, W, C)",
        )
    try:
        contract = Preprocess.from_dict(preprocess) if preprocess else None
    except (ContractError, TypeError) as error:
        raise SourceError(f"the preprocess of {origin} cannot be used: {error}") from error
    return CheckpointContent(
        state_dict=content["state_dict"],
        key="state_dict",
        arch=str(arch),
        arch_kwargs=dict(kwargs),
        input_size=(contract.channels, *contract.size) if contract else (),
        preprocess=contract,
        labels=tuple(labels) if labels else None,
        calibration_sample=sample.numpy() if sample is not None else None,
    )


def without_bookkeeping(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights alone, without what averaged models add."""
    return {k: v for k, v in state_dict.items() if k not in _BOOKKEEPING}
