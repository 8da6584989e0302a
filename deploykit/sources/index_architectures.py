"""Writes the index of `identify_architecture`: ``python -m deploykit.sources.index_architectures``.

Every classification network of timm and torchvision, but for the largest, is built once, without
memory for its weights (torch's ``meta`` device): some 10 CPU minutes. Run it again when either
library has new networks.
"""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any

from deploykit.files import write_atomically
from deploykit.own_process import claim_process
from deploykit.sources.identify_architecture import INDEX, fingerprint

#: Networks of hundreds of millions of parameters go to no phone, and cost most of the time.
_TOO_LARGE = re.compile(
    r"giant|gigantic|huge|enormous|xlarge|so400m|so150m|_[1-9]b_|_(large|g|h|e)_patch"
)

#: A number of classes that no library has as its default: what takes it is the classifier.
_CLASSES = 7


def main() -> int:
    """Build every network and write the index."""
    claim_process()
    heads: dict[tuple[str, ...], None] = {}
    found: dict[str, list[str]] = {}
    skipped: list[str] = []
    for name, shapes, head in _networks(skipped):
        heads.setdefault(head)
        found.setdefault(fingerprint(shapes, head), []).append(name)
    document = {
        "versions": {library: version(library) for library in ("timm", "torchvision")},
        "heads": sorted(heads),
        "architectures": {key: sorted(names) for key, names in sorted(found.items())},
    }
    write_atomically(INDEX, (json.dumps(document, indent=0) + "\n").encode())
    print(f"{sum(map(len, found.values()))} networks in {INDEX.name}; not built: {skipped or '-'}")
    return 0


def _networks(skipped: list[str]) -> Iterator[tuple[str, dict[str, tuple[int, ...]], Any]]:
    import timm
    import torchvision

    for name in torchvision.models.list_models(module=torchvision.models):
        try:
            plain = _shapes(torchvision.models.get_model, name)
            other = _shapes(torchvision.models.get_model, name, num_classes=_CLASSES)
        except Exception as error:
            skipped.append(f"torchvision/{name} ({type(error).__name__})")
            continue
        yield f"torchvision/{name}", plain, _changed(plain, other)
    for name in timm.list_models():
        if _TOO_LARGE.search(name):
            continue
        try:
            plain = _shapes(timm.create_model, name)
        except Exception as error:
            skipped.append(f"timm/{name} ({type(error).__name__})")
            continue
        yield f"timm/{name}", plain, _timm_head(timm.get_pretrained_cfg(name), plain)


def _shapes(build: Any, name: str, **kwargs: Any) -> dict[str, tuple[int, ...]]:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with torch.device("meta"):
                module = build(name, **kwargs)
        except NotImplementedError:  # its initialization needs real numbers
            module = build(name, **kwargs)
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def _timm_head(config: Any, shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, ...]:
    """The classifier's parameters: timm names its modules, one or several."""
    modules = getattr(config, "classifier", None) or ()
    modules = (modules,) if isinstance(modules, str) else tuple(modules)
    names = [f"{module}.{kind}" for kind in ("weight", "bias") for module in modules]
    return tuple(name for name in names if name in shapes)


def _changed(
    plain: Mapping[str, tuple[int, ...]], other: Mapping[str, tuple[int, ...]]
) -> tuple[str, ...]:
    """The classifier: what has another first dimension, weights before biases."""
    names = [name for name, shape in plain.items() if other.get(name, shape) != shape]
    return tuple(sorted(names, key=lambda name: (not name.endswith("weight"), name)))


if __name__ == "__main__":
    sys.exit(main())
