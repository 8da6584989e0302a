"""Architectures of torchvision, with the input that its published weights are evaluated on."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploykit.errors import MissingDependencyError
from deploykit.preprocess import Preprocess
from deploykit.sources.built_architecture import Architecture, building, unknown_name
from deploykit.sources.lazy_packages import lazy_import
from deploykit.sources.torchvision_detection import expose_raw_heads, is_detector

_DEFAULT_SIZE = 224


def build_torchvision(name: str, kwargs: Mapping[str, Any]) -> Architecture:
    """torchvision's network of that name, untrained; a detector up to its raw heads.

    Raises:
        UnsupportedModelError: a detector of two stages.
        SourceError: torchvision has no such network, or its constructor refuses the arguments.
        MissingDependencyError: torchvision is not installed.
    """
    full = f"torchvision/{name}"
    try:
        api = _import_torchvision(name, full)
    except ImportError as error:
        raise MissingDependencyError("torchvision", needed_for=full, extra="zoo") from error
    known = api.list_models()
    if name not in known:
        api = importlib.import_module("torchvision.models")
        known = api.list_models()
    if name not in known:
        raise unknown_name("torchvision", name, known)
    if "weights_backbone" in inspect.signature(api.get_model_builder(name)).parameters:
        kwargs = {"weights_backbone": None, **kwargs}  # its default would be downloaded
    with building(full, kwargs):
        module = api.get_model(name, **kwargs)
    if is_detector(module):
        preprocess = expose_raw_heads(module, full)
    else:
        preprocess = _preprocess_of(api, name)
    return Architecture(full, module, (1, 3, *preprocess.size), preprocess)


def _import_torchvision(name: str, full: str) -> Any:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError("torchvision", needed_for=full, extra="zoo")
    folder = Path(spec.submodule_search_locations[0]) / "models"
    pattern = re.compile(rf"^def {re.escape(name)}\(".encode(), re.MULTILINE)
    found = [p.stem for p in sorted(folder.glob("[a-z]*.py")) if pattern.search(p.read_bytes())]
    if len(found) == 1 and lazy_import("torchvision", f"torchvision.models.{found[0]}"):
        return importlib.import_module("torchvision.models._api")
    return importlib.import_module("torchvision.models")


def _preprocess_of(api: Any, name: str) -> Preprocess:
    """What torchvision's transform for the default weights does.

    It scales the shorter side to ``resize_size`` (256 unless told), crops ``crop_size`` (224) from
    the centre and normalizes by ImageNet's mean and deviation. Nothing is downloaded: the
    transform's arguments stand beside the address of the weights.
    """
    arguments: Mapping[str, Any] = {}
    default = getattr(api.get_model_weights(name), "DEFAULT", None)
    if default is not None:
        arguments = getattr(default.transforms, "keywords", {})
    crop = int(arguments.get("crop_size", _DEFAULT_SIZE))
    interpolation = getattr(arguments.get("interpolation"), "value", "bilinear")
    return Preprocess(
        size=(crop, crop),
        resize=int(arguments.get("resize_size", 256)),
        interpolation=interpolation if interpolation in ("nearest", "bicubic") else "bilinear",
        mean=tuple(arguments.get("mean", Preprocess.mean)),
        std=tuple(arguments.get("std", Preprocess.std)),
    )
