"""How much of a machine a file may take: sizes, counts and times beyond which it is refused.

A file that someone else made says how large it is: a zip archive of 2 MB may unpack to gigabytes,
and a header of 100 bytes may ask for an array of terabytes. Each reader compares what a file claims
with these limits before it allocates anything. The defaults hold every compact vision model with
room to spare; ``--max NAME=VALUE`` sets another (``deploykit convert --help``), and from Python::

    with limits_set(Limits(nodes=200_000)):
        model = deploykit.load("large.onnx")
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace

from deploykit.errors import ContractError, DataError

_MIB = 1 << 20
_GIB = 1 << 30


@dataclass(frozen=True)
class Limits:
    """What a file may claim.

    Attributes:
        file_bytes: Size of a source file, or of all files of a source folder.
        unpacked_bytes: What all members of a zip archive unpack to.
        archive_ratio: Unpacked bytes for each byte of a zip archive, beyond the first 256 MiB.
        nodes: Nodes of a graph, those of subgraphs and functions included.
        nesting: Depth of subgraphs within subgraphs, and of lists and objects in JSON.
        json_bytes: Size of a JSON file: manifest, preprocessing contract, calibration table.
        image_pixels: Width times height of one image.
        samples: Images or tensors read of one data set.
        activation_bytes: All values that a graph computes in one run, by their inferred shapes.
        stage_seconds: Time of each pass, and of quantizing and writing one artefact.
        native_bytes: Memory that a C++ reader may allocate, beyond 16 times what it reads.
        native_seconds: Time that a C++ reader may take for one call.
        program_bytes: Memory that a program (TorchScript, .pt2, Keras, SavedModel) may allocate.
        program_seconds: Time that a program may take to be loaded and brought to ONNX.
    """

    file_bytes: int = 4 * _GIB
    unpacked_bytes: int = 8 * _GIB
    archive_ratio: int = 20
    nodes: int = 50_000
    nesting: int = 64
    json_bytes: int = 256 * _MIB
    image_pixels: int = 100_000_000
    samples: int = 1_000_000
    activation_bytes: int = 4 * _GIB
    stage_seconds: int = 300
    native_bytes: int = 512 * _MIB
    native_seconds: int = 120
    program_bytes: int = 8 * _GIB
    program_seconds: int = 600


#: Up to here, no archive is a bomb, whatever its ratio.
SMALL_ARCHIVE_BYTES = 256 * _MIB

_CURRENT: ContextVar[Limits | None] = ContextVar("deploykit_limits", default=None)
_DEFAULT = Limits()
_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def current_limits() -> Limits:
    """The limits that hold here."""
    return _CURRENT.get() or _DEFAULT


@contextlib.contextmanager
def limits_set(limits: Limits) -> Iterator[None]:
    """``limits`` hold within the block."""
    token = _CURRENT.set(limits)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def parse_limits(given: Sequence[str]) -> Limits:
    """The limits that ``NAME=VALUE`` entries change; a value may end in K, M or G (of 1024).

    Raises:
        ContractError: no such limit, or a value that is no positive whole number.
    """
    known = {f.name: getattr(_DEFAULT, f.name) for f in fields(Limits)}
    changed: dict[str, int] = {}
    for entry in given:
        name, _, text = entry.partition("=")
        if name not in known:
            raise ContractError(
                f"--max {entry!r}: there is no limit {name!r}", expected=", ".join(known)
            )
        changed[name] = _parse_size(entry, text)
    return replace(_DEFAULT, **changed)


def _parse_size(entry: str, text: str) -> int:
    unit = _UNITS.get(text[-1:].lower(), 1)
    digits = text[:-1] if unit != 1 else text
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 15 and int(digits) > 0):
        raise ContractError(
            f"--max {entry!r} gives no positive whole number",
            expected="NAME=VALUE, e.g. nodes=200000 or file_bytes=8G",
        )
    return int(digits) * unit


def elements_of(shape: Sequence[int]) -> int:
    """Number of elements of a shape, exact however large."""
    return math.prod(shape)


def check_samples(count: int, origin: str) -> None:
    """Refuse a data set of which more samples would be read than the limits allow.

    Raises:
        DataError: it is one.
    """
    limit = current_limits().samples
    if count > limit:
        raise DataError(
            f"{origin} has {count:,} samples",
            expected=f"at most {limit:,}",
            advice="take fewer with --samples, or --max samples=N allows more",
        )


def described_limits() -> Mapping[str, int]:
    """Name → default of every limit."""
    return {f.name: getattr(_DEFAULT, f.name) for f in fields(Limits)}
