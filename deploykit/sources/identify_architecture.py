"""Which architecture do these weights belong to? Found by names and shapes, from a committed index.

A state_dict names every layer and gives its shape, which is nearly always enough to tell the
network that it was saved from. `architecture_index.json` holds a fingerprint of each classification
network of timm and torchvision, so nothing is built to find out. The last layer's number of classes
is left out of the fingerprint and read from the weights.

Some networks cannot be distinguished in this way: timm's ``tf_`` variants have the names and
shapes of their originals but pad differently. All that fit are returned then, and the user chooses.

The index is written by ``python -m deploykit.sources.index_architectures``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

INDEX = Path(__file__).with_name("architecture_index.json")

_COUNTER = "num_batches_tracked"  # of batch norm; some training scripts leave it out
_DIGITS = 16

Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class IdentifiedArchitecture:
    """An architecture that weights fit.

    Attributes:
        name: ``timm/NAME`` or ``torchvision/NAME``.
        num_classes: The outputs of its last layer in these weights; None where it has no
            classifier.
        prefix: What stands before every name of the weights, e.g. ``model.``; often empty.
    """

    name: str
    num_classes: int | None
    prefix: str = ""


@dataclass(frozen=True)
class ArchitectureIndex:
    """Fingerprints of known architectures.

    Attributes:
        heads: The classifiers' parameters that occur, e.g. ``("fc.weight", "fc.bias")``.
        architectures: Fingerprint → names of the architectures that have it.
        versions: Library → version that the index was made from.
    """

    heads: tuple[tuple[str, ...], ...]
    architectures: Mapping[str, tuple[str, ...]]
    versions: Mapping[str, str]


@cache
def read_index(path: Path = INDEX) -> ArchitectureIndex:
    """The committed index."""
    document = json.loads(path.read_text(encoding="utf-8"))
    return ArchitectureIndex(
        heads=tuple(tuple(head) for head in document["heads"]),
        architectures={key: tuple(names) for key, names in document["architectures"].items()},
        versions=document["versions"],
    )


def identify_architecture(
    shapes: Shapes, index: ArchitectureIndex | None = None
) -> tuple[IdentifiedArchitecture, ...]:
    """All known architectures whose names and shapes are those of the weights.

    Args:
        shapes: Parameter name → shape. A prefix that all names share (``model.``, ``net.``,
            ``module.``, several of them) is taken off where that makes them fit.
        index: The index; None for the committed one.

    Returns:
        In alphabetical order; empty if none fits.
    """
    index = index or read_index()
    for prefix in _prefixes(shapes):
        bare = {name.removeprefix(prefix): shape for name, shape in shapes.items()}
        found = [
            IdentifiedArchitecture(name, _class_count(bare, head), prefix)
            for head in index.heads
            if all(name in bare for name in head)
            for name in index.architectures.get(fingerprint(bare, head), ())
        ]
        if found:
            return tuple(sorted(found, key=lambda one: one.name))
    return ()


def fingerprint(shapes: Shapes, head: Iterable[str]) -> str:
    """16 hexadecimal digits of the SHA-256 over names and shapes.

    Args:
        shapes: Parameter name → shape, in any order; batch norm's counters do not count.
        head: Names of the classifier's parameters, whose first dimension (the classes) does not
            count.
    """
    masked = set(head)
    lines = []
    for name in sorted(shapes):
        if not name.endswith(_COUNTER):
            sizes = [str(n) for n in shapes[name]]
            lines.append(f"{name} {'x'.join(['N', *sizes[1:]] if name in masked else sizes)}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:_DIGITS]


def _class_count(shapes: Shapes, head: Sequence[str]) -> int | None:
    return int(shapes[head[0]][0]) if head else None


def _prefixes(shapes: Shapes) -> list[str]:
    """Nothing, then what all names begin with, one part more at a time."""
    parts = [name.split(".") for name in shapes]
    found = [""]
    for depth in range(min((len(p) for p in parts), default=1) - 1):
        if len({p[depth] for p in parts}) != 1:
            break
        found.append(found[-1] + parts[0][depth] + ".")
    return found
