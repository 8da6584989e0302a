"""Whether a file is an ONNX model, from the outermost fields of its protobuf message.

Only tags and lengths are read (protobuf's wire format: a varint ``field << 3 | type``, then a
varint, 8 or 4 bytes, or a length and that many bytes), so it costs nothing whatever the size.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, Literal

_GRAPH, _OPSET_IMPORT = 7, 8
# onnx.ModelProto: field number → wire type (0 varint, 2 length-delimited).
_MODEL_FIELDS = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}


def scan_onnx(path: Path) -> Literal["onnx", "truncated", "no"]:
    """``onnx``; ``truncated`` if a field that only ONNX would have here ends behind the file."""
    size = path.stat().st_size
    seen: set[int] = set()
    with path.open("rb") as stream:
        while stream.tell() < size:
            tag = _read_varint(stream)
            if tag is None or _MODEL_FIELDS.get(tag >> 3) != tag & 7:
                return "no"
            value = _read_varint(stream)
            if value is None:
                return "truncated" if seen else "no"
            field = tag >> 3
            if field == 1 and not 1 <= value <= 1000:
                return "no"
            if tag & 7 == 2:
                if stream.tell() + value > size:
                    # The version and the graph's tag, in their places, are no accident.
                    return "truncated" if 1 in seen and field >= _GRAPH else "no"
                stream.seek(value, 1)
            seen.add(field)
    if _GRAPH not in seen:
        return "truncated" if 1 in seen and len(seen) > 1 else "no"
    # A graph may be the last field or stand before its opset; without an opset the file is cut.
    return "onnx" if _OPSET_IMPORT in seen else "truncated"


def _read_varint(stream: IO[bytes]) -> int | None:
    result = shift = 0
    while shift < 64:
        byte = stream.read(1)
        if not byte:
            return None
        result |= (byte[0] & 0x7F) << shift
        if not byte[0] & 0x80:
            return result
        shift += 7
    return None
