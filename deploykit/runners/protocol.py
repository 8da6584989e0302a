"""What parent and child say to each other: a JSON header, then the bytes of the arrays.

    4 bytes  ``DKR1``
    4 bytes  length of the header, little-endian
    header   UTF-8 JSON; ``arrays`` lists [name, dtype, shape] in the order of the bytes
    bytes    of each array, C-contiguous, without padding

Nothing is ever unpickled. An array is written from its own memory and read into its own memory;
only one that is not contiguous is copied first.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from deploykit.tensors import Array

MAGIC = b"DKR1"
_PREFIX = struct.Struct("<4sI")
_MAX_HEADER_BYTES = 1 << 26
_KINDS = "biufc"  # bool, signed, unsigned, float, complex: all that are plain bytes


class ProtocolError(Exception):
    """The other side wrote something that is not a message."""


class ByteStream(Protocol):
    """An unbuffered binary stream; a call may move fewer bytes than it was asked to."""

    def write(self, data: memoryview, /) -> int | None:
        """Write some of ``data``; how many bytes went."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Read some bytes into ``buffer``; how many came, 0 at the end of the stream."""


def write_message(
    stream: ByteStream, header: Mapping[str, Any], arrays: Mapping[str, Array]
) -> None:
    """Write one message.

    Args:
        stream: An unbuffered pipe.
        header: Plain data; the key ``arrays`` is taken by the protocol.
        arrays: Name → array of bool, integer, float or complex elements, any shape.

    Raises:
        TypeError: an array of another kind of element (object, string, structure).
        OSError: the other side is gone.
    """
    described = []
    views = []
    for name, array in arrays.items():
        if array.dtype.kind not in _KINDS:
            raise TypeError(f"array {name!r} has dtype {array.dtype}, which is not plain numbers")
        flat = np.ascontiguousarray(array).reshape(-1)
        described.append([name, flat.dtype.str, list(array.shape)])
        views.append(flat.view(np.uint8).data)
    text = json.dumps({**header, "arrays": described}).encode()
    _write_all(stream, memoryview(_PREFIX.pack(MAGIC, len(text)) + text))
    for view in views:
        _write_all(stream, view)


def read_message(stream: ByteStream) -> tuple[dict[str, Any], dict[str, Array]] | None:
    """Read one message; None where the other side closed the stream between two messages.

    Raises:
        EOFError: the stream ended inside of a message.
        ProtocolError: the bytes are no message.
    """
    prefix = bytearray(_PREFIX.size)
    if not _read_all(stream, memoryview(prefix), at_boundary=True):
        return None
    magic, length = _PREFIX.unpack(prefix)
    if magic != MAGIC or length > _MAX_HEADER_BYTES:
        raise ProtocolError(f"bytes {bytes(prefix)!r} where a message should begin")
    text = bytearray(length)
    _read_all(stream, memoryview(text))
    try:
        header = json.loads(text)
        described = [(str(n), np.dtype(d), tuple(map(int, s))) for n, d, s in header.pop("arrays")]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProtocolError(f"a header that cannot be read: {error}") from error
    arrays = {}
    for name, dtype, shape in described:
        if dtype.kind not in _KINDS or any(d < 0 for d in shape):
            raise ProtocolError(f"array {name!r} of dtype {dtype} and shape {shape}")
        flat = np.empty(math.prod(shape), dtype=dtype)
        _read_all(stream, flat.view(np.uint8).data)
        arrays[name] = flat.reshape(shape)
    return header, arrays


def _write_all(stream: ByteStream, view: memoryview) -> None:
    while view.nbytes:
        written = stream.write(view)
        view = view[written or 0 :]


def _read_all(stream: ByteStream, view: memoryview, *, at_boundary: bool = False) -> bool:
    """Fill ``view``; False if the stream ended before the first byte and that is allowed."""
    untouched = at_boundary
    while view.nbytes:
        count = stream.readinto(view)
        if not count:
            if untouched:
                return False
            raise EOFError("the stream ended inside of a message")
        untouched = False
        view = view[count:]
    return True
