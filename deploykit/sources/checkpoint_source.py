"""A checkpoint and an architecture to a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from deploykit.errors import SourceError
from deploykit.preprocess import ContractOrigin, Preprocess
from deploykit.sources.architecture import FORMS, build_architecture
from deploykit.sources.built_architecture import Architecture
from deploykit.sources.checkpoint import CheckpointContent, load_checkpoint, without_bookkeeping
from deploykit.sources.identify_architecture import identify_architecture
from deploykit.sources.options import LoadOptions
from deploykit.sources.stored_architecture import plain_kwargs, stored_architecture
from deploykit.sources.torch_source import TorchSource, static_input_shape
from deploykit.sources.weights import load_weights, strip_prefixes

#: Arguments up to these make no network of an unusual size.
_HARMLESS = {"num_classes": 1 << 16, "in_chans": 1 << 10}
_SMALL_NETWORK = 1 << 24


def open_checkpoint(path: Path, options: LoadOptions) -> TorchSource:
    """The network of a checkpoint, with its weights.

    The architecture is the option's, else the checkpoint's own (a bare name, as timm's training
    script writes it, is timm's), else the one whose names and shapes the weights have. The input
    is the option's, else the checkpoint's, else the architecture's own.

    Raises:
        SourceError: no weights, no architecture, or one does not fit the other.
        MissingDependencyError: torch or the architecture's library is not installed.
    """
    return network_of(load_checkpoint(path, options.key), options, origin=str(path))


def network_of(content: CheckpointContent, options: LoadOptions, *, origin: str) -> TorchSource:
    """As `open_checkpoint`, from what was read already."""
    identified = ""
    if not (options.arch or content.arch):
        content, identified = _identify(content, origin)
    built = _build(content, options, origin)
    load_weights(
        built.module, without_bookkeeping(content.state_dict), origin=origin, arch=built.name
    )
    own_shape = (1, *content.input_size) if content.input_size else built.input_shape
    shape = static_input_shape(options.input_shape, own_shape, what=f"{origin} with {built.name}")
    preprocess = content.preprocess or _preprocess_of(content, built, shape)
    _check_labels(content.labels, origin)
    return TorchSource(
        program=built.module.float().eval(),
        input_shapes=(shape,),
        arch=built.name,
        preprocess=_resized(preprocess, shape),
        labels=content.labels,
        calibration_sample=content.calibration_sample,
        preprocess_origin=ContractOrigin.CHECKPOINT
        if content.preprocess or content.preprocess_config
        else ContractOrigin.ASSUMED,
        identified=identified,
    )


def _identify(content: CheckpointContent, origin: str) -> tuple[CheckpointContent, str]:
    """The content with the architecture that its weights fit, and how that was found.

    Raises:
        SourceError: none is known that fits, or several are.
    """
    weights = strip_prefixes(without_bookkeeping(content.state_dict))
    found = identify_architecture({name: tuple(t.shape) for name, t in weights.items()})
    if not found:
        some = ", ".join(list(content.state_dict)[:3])
        raise SourceError(
            f"{origin} holds weights ({some} ...) but does not say of which architecture, and no "
            "network of timm or torchvision has these names and shapes",
            expected=f"--arch with {FORMS}",
            advice="e.g. --arch timm/ghostnet_100 --arch-kwargs num_classes=10",
        )
    names = [one.name for one in found]
    if len(found) > 1:
        raise SourceError(
            f"the weights of {origin} fit {len(found)} architectures, which have the same names "
            f"and shapes and compute different things: {', '.join(names)}",
            expected="--arch with the one that was trained",
            advice=f"e.g. --arch {names[0]}",
        )
    one = found[0]
    kwargs = {**content.arch_kwargs}
    classes = ""
    if one.num_classes is not None:
        kwargs.setdefault("num_classes", one.num_classes)
        classes = f", {one.num_classes} classes"
    prefix = f", without the prefix '{one.prefix}'" if one.prefix else ""
    words = f"identified as {one.name} by names and shapes of the weights{classes}{prefix}"
    return replace(content, arch=one.name, arch_kwargs=kwargs), words


def _build(content: CheckpointContent, options: LoadOptions, origin: str) -> Architecture:
    if options.arch and options.arch != content.arch:
        return build_architecture(options.arch, options.arch_kwargs)
    # The file's own arguments belong to its own architecture, and give way to the user's.
    own = {k: v for k, v in content.arch_kwargs.items() if k not in options.arch_kwargs}
    if options.arch:  # said by the user too, who may name code
        name, own = options.arch, plain_kwargs(own, origin)
    else:
        name, own = stored_architecture(content.arch, own, origin)
        _check_size(name, {**own, **options.arch_kwargs}, content, origin)
    return build_architecture(name, {**own, **options.arch_kwargs})


def _check_size(
    name: str, kwargs: Mapping[str, Any], content: CheckpointContent, origin: str
) -> None:
    """Refuse arguments of a file that ask for a network much larger than its weights.

    Such a network is built on torch's device without memory first, unless they only say how many
    channels and classes it has.

    Raises:
        SourceError: they do.
    """
    import torch

    if all(k in _HARMLESS and isinstance(v, int) and v <= _HARMLESS[k] for k, v in kwargs.items()):
        return
    try:
        with torch.device("meta"):
            module = build_architecture(name, dict(kwargs)).module
    except (NotImplementedError, SourceError):  # as it is built now, or it needs real weights
        return
    needed = sum(t.numel() for t in module.state_dict().values())
    stored = sum(t.numel() for t in content.state_dict.values())
    if needed > 2 * stored + _SMALL_NETWORK:
        raise SourceError(
            f"{origin} names {name} with arguments that make {needed:,} weights, and holds "
            f"{stored:,}",
            expected="the arguments with which it was trained",
            advice="give them, e.g. --arch-kwargs num_classes=10",
        )


def _preprocess_of(
    content: CheckpointContent, built: Architecture, shape: tuple[int, ...]
) -> Preprocess | None:
    base = built.preprocess
    if not content.preprocess_config:
        return base
    from deploykit.sources.timm_architecture import preprocess_of_config

    defaults: dict[str, Any] = {}
    if base is not None:
        defaults = {"mean": base.mean, "std": base.std, "interpolation": base.interpolation}
        if isinstance(base.resize, int):
            defaults["crop_pct"] = base.size[0] / base.resize
    return preprocess_of_config({**defaults, **content.preprocess_config}, shape)


def _resized(preprocess: Preprocess | None, shape: tuple[int, ...]) -> Preprocess | None:
    """The contract at the size that the network is exported for, with the crop in proportion."""
    if preprocess is None or len(shape) != 4 or preprocess.channels != shape[1]:
        return None
    size = (shape[2], shape[3])
    if size == preprocess.size:
        return preprocess
    resize = preprocess.resize
    if isinstance(resize, int):
        resize = round(resize * min(size) / min(preprocess.size))
    elif resize is not None:
        resize = (
            round(resize[0] * size[0] / preprocess.size[0]),
            round(resize[1] * size[1] / preprocess.size[1]),
        )
    return replace(preprocess, size=size, resize=resize)


def _check_labels(labels: tuple[str, ...] | None, origin: str) -> None:
    if labels is not None and len(set(labels)) != len(labels):
        twice = sorted({n for n in labels if labels.count(n) > 1})
        raise SourceError(f"{origin} has labels that stand twice: {', '.join(twice[:5])}")
