"""Architectures of timm, with the input that timm's default configuration gives them."""

from __future__ import annotations

import importlib
import importlib.util
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploykit.errors import MissingDependencyError, SourceError
from deploykit.preprocess import Preprocess
from deploykit.sources.built_architecture import Architecture, building, unknown_name
from deploykit.sources.lazy_packages import lazy_import


def build_timm(name: str, kwargs: Mapping[str, Any]) -> Architecture:
    """timm's network of that name, untrained.

    Raises:
        SourceError: timm has no such network, or its constructor refuses the arguments.
        MissingDependencyError: timm is not installed.
    """
    if ":" in name or "/" in name:
        raise SourceError(
            f"timm/{name} would be fetched from elsewhere",
            expected="the name of an architecture, e.g. timm/ghostnet_100",
        )
    full = f"timm/{name}"
    try:
        factory, registry = _import_timm(name.partition(".")[0], full)
    except ImportError as error:
        raise MissingDependencyError("timm", needed_for=full, extra="zoo") from error
    if not registry.is_model(name):
        raise unknown_name("timm", name, registry.list_models())
    with building(full, kwargs):
        module = factory.create_model(name, **kwargs)
    config = getattr(module, "default_cfg", None) or getattr(module, "pretrained_cfg", None) or {}
    return Architecture(full, module, *_input_of(dict(config), kwargs))


def _import_timm(base_name: str, full: str) -> tuple[Any, Any]:
    spec = importlib.util.find_spec("timm")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError("timm", needed_for=full, extra="zoo")
    module = _defining_module(Path(spec.submodule_search_locations[0]) / "models", base_name)
    if module is None or not lazy_import("timm", f"timm.models.{module}"):
        importlib.import_module("timm").create_model  # noqa: B018 - every model registers itself
    return (
        importlib.import_module("timm.models._factory"),
        importlib.import_module("timm.models._registry"),
    )


def _defining_module(folder: Path, name: str) -> str | None:
    """The file of timm's model folder that defines an entry point; None if no one file does."""
    pattern = re.compile(rf"^def {re.escape(name)}\(".encode(), re.MULTILINE)
    found = [p.stem for p in sorted(folder.glob("[a-z]*.py")) if pattern.search(p.read_bytes())]
    return found[0] if len(found) == 1 else None


def _input_of(
    config: Mapping[str, Any], kwargs: Mapping[str, Any]
) -> tuple[tuple[int, ...], Preprocess | None]:
    size = config.get("input_size")
    if not size:
        return (), None
    channels = int(kwargs.get("in_chans") or size[0])
    image_size = kwargs.get("img_size") or size[1:]
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    shape = (1, channels, int(height), int(width))
    return shape, preprocess_of_config(config, shape)


def preprocess_of_config(config: Mapping[str, Any], shape: tuple[int, ...]) -> Preprocess | None:
    """timm's evaluation transform as a contract.

    timm scales the shorter side to ``floor(size / crop_pct)`` and crops the centre; with
    ``crop_mode="squash"`` it scales both sides to that.

    Returns:
        None where the configuration gives no mean and standard deviation for the channels.
    """
    mean, std = config.get("mean"), config.get("std")
    if not mean or not std or shape[1] != len(mean) or shape[1] not in (1, 3):
        return None
    height, width = shape[2:]
    crop = float(config.get("crop_pct") or 0.875)
    scaled = (math.floor(height / crop), math.floor(width / crop))
    squash = config.get("crop_mode") == "squash" or height != width
    interpolation = str(config.get("interpolation") or "bilinear")
    return Preprocess(
        size=(height, width),
        color="RGB" if shape[1] == 3 else "GRAY",
        resize=scaled if squash else scaled[0],
        # "random" is a training augmentation; timm's evaluation then takes bilinear.
        interpolation=interpolation if interpolation in ("nearest", "bicubic") else "bilinear",
        mean=tuple(float(v) for v in mean),
        std=tuple(float(v) for v in std),
    )
