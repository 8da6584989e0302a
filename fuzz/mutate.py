"""Mutators: from the bytes of a sound file to those of an odd one, by a seeded generator.

`mutate_bytes` knows no structure; `mutate_protobuf` knows the wire format (tags, varints, lengths),
and so serves ONNX, SavedModel and Core ML; `mutate_flatbuffer` knows aligned 32-bit offsets;
`mutate_json`, `mutate_text` and `mutate_zip` know theirs, and mutate what is inside by what it is.
"""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
from collections.abc import Callable
from typing import Any

Mutator = Callable[[bytes, random.Random], bytes]

_EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF,
             1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)  # fmt: skip
_NAMES = ("", "x", "\x1b[2J\x1b[31m", "a\nb\rc", "\u202eevil", "../../etc/passwd", "n" * 10_000,
          "é画像", "\x00", "/dev/zero", "%s%n", "</script>", "🦆")  # fmt: skip


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flip, overwrite, insert, remove, repeat or cut off some bytes."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        if not out:
            return bytes(out)
        at, length = rng.randrange(len(out)), rng.choice((1, 1, 2, 4, 8, 64))
        kind = rng.randrange(7)
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            out[at:at] = rng.randbytes(length)
        elif kind == 3:
            del out[at : at + length]
        elif kind == 4:
            out[at:at] = out[at : at + length] * rng.choice((1, 2, 50))
        elif kind == 5:
            out[at : at + 4] = struct.pack("<I", rng.choice(_EXTREMES) & 0xFFFFFFFF)
        elif rng.random() < 0.3:
            del out[at:]
    return bytes(out)


def mutate_flatbuffer(data: bytes, rng: random.Random) -> bytes:
    """Overwrite aligned 32-bit words: offsets, counts and values."""
    if rng.random() < 0.2 or len(data) < 8:
        return mutate_bytes(data, rng)
    out = bytearray(data)
    words = len(out) // 4
    for _ in range(rng.choice((1, 1, 2, 3))):
        # Tables and vectors stand at both ends, weights between them.
        at = rng.choice((rng.randrange(words), rng.randrange(min(words, 200)), words - 1 - rng.randrange(min(words, 500))))  # fmt: skip
        (old,) = struct.unpack_from("<I", out, at * 4)
        new = rng.choice((*_EXTREMES, old + 1, old - 1, old + 4, old * 2, rng.randrange(words * 4)))
        struct.pack_into("<I", out, at * 4, new & 0xFFFFFFFF)
    return bytes(out)


# --- protobuf ---------------------------------------------------------------------------------

Field = tuple[int, int, Any]  # number, wire type, varint or bytes or list of fields


def mutate_protobuf(data: bytes, rng: random.Random) -> bytes:
    """Change, remove, repeat or move fields of the message, at any depth."""
    fields = _parse_message(data, 0)
    if fields is None or rng.random() < 0.05:
        return mutate_bytes(data, rng)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        _mutate_fields(fields, rng)
    return _write_message(fields)


def _parse_message(data: bytes, depth: int) -> list[Field] | None:
    fields: list[Field] = []
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        wire, number = tag & 7, tag >> 3
        if at < 0 or number == 0 or number > 1000:
            return None
        value: Any
        if wire == 0:
            value, at = _read_varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            value, at = data[at : at + size], at + size
        elif wire == 2:
            length, at = _read_varint(data, at)
            if at < 0 or at + length > len(data):
                return None
            value, at = data[at : at + length], at + length
            inner = _parse_message(value, depth + 1) if 1 < length < 1 << 20 and depth < 8 else None
            value = inner or value
        else:
            return None
        if at < 0 or at > len(data):
            return None
        fields.append((number, wire, value))
    return fields


def _mutate_fields(fields: list[Field], rng: random.Random) -> None:
    while True:  # walk down to some message
        inner = [f[2] for f in fields if isinstance(f[2], list)]
        if not inner or rng.random() < 0.2:
            break
        fields = rng.choice(inner)
    if not fields:
        return
    at = rng.randrange(len(fields))
    number, wire, value = fields[at]
    kind = rng.randrange(8)
    if kind == 0:
        del fields[at]
    elif kind == 1:
        fields.insert(rng.randrange(len(fields) + 1), fields[at])
    elif kind == 2:
        other = rng.randrange(len(fields))
        fields[at], fields[other] = fields[other], fields[at]
    elif kind == 3:
        fields[at] = (rng.choice((number + 1, max(number - 1, 1), rng.randrange(1, 40))), wire, value)  # fmt: skip
    elif wire == 0:
        fields[at] = (number, 0, rng.choice((*_EXTREMES, value + 1, max(value - 1, 0), rng.randrange(24))))  # fmt: skip
    elif wire == 2 and not isinstance(value, list):
        new = rng.choice(_NAMES).encode() if rng.random() < 0.5 else mutate_bytes(value, rng)
        same = [f[2] for f in fields if f[0] == number and isinstance(f[2], bytes)]
        fields[at] = (number, 2, rng.choice(same) if len(same) > 1 and rng.random() < 0.4 else new)
    elif wire in (1, 5):
        special = rng.choice((0.0, -1.0, 1e38, float("nan"), float("inf")))
        fields[at] = (number, wire, struct.pack("<d" if wire == 1 else "<f", special))


def _write_message(fields: list[Field]) -> bytes:
    out = bytearray()
    for number, wire, value in fields:
        out += _varint(number << 3 | wire)
        if wire == 0:
            out += _varint(value)
        elif wire == 2:
            data = _write_message(value) if isinstance(value, list) else value
            out += _varint(len(data)) + data
        else:
            out += value
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    result = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        result |= (byte & 0x7F) << shift
        at += 1
        if not byte & 0x80:
            return result & ((1 << 64) - 1), at
        shift += 7
    return 0, -1


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


# --- JSON and text ----------------------------------------------------------------------------

_LITERALS = ("null", "true", "-1", "0", "1e400", "-1e400", "NaN", "Infinity", "1.5", "3", '""',
             '"text"', "[]", "{}", "[[]]", '[1, "a", null]', '{"a": 1}', "9" * 400, "9" * 5000,
             "1e-400", "-0", "[" * 3000 + "]" * 3000, '{"a":' * 2000 + "1" + "}" * 2000,
             "2147483648", "18446744073709551616", '"\\ud800"', '"\\u001b[2J"', '"é"')  # fmt: skip
_MARK = "\ue000"


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    """Put odd values, other types and deep nesting into a document; remove and add entries."""
    if rng.random() < 0.15:
        return mutate_bytes(data, rng)
    try:
        document = json.loads(data)
    except ValueError:
        return mutate_bytes(data, rng)
    literals: list[str] = []
    document = _mutate_value(document, rng, literals, rng.choice((0.02, 0.1, 0.3)))
    if not literals:
        return mutate_bytes(data, rng) if rng.random() < 0.5 else _one_literal(document, rng)
    text = json.dumps(document)
    for index, literal in enumerate(literals):
        text = text.replace(json.dumps(f"{_MARK}{index}"), literal)
    return text.encode("utf-8", "surrogatepass")


def _one_literal(document: Any, rng: random.Random) -> bytes:
    if isinstance(document, dict) and document:
        document = {**document, rng.choice(list(document)): _MARK}
        text = json.dumps(document).replace(json.dumps(_MARK), rng.choice(_LITERALS))
        return text.encode()
    return rng.choice(_LITERALS).encode()


def _mutate_value(value: Any, rng: random.Random, literals: list[str], chance: float) -> Any:
    if len(literals) < 3 and rng.random() < chance * 0.3:
        literals.append(rng.choice(_LITERALS))
        return f"{_MARK}{len(literals) - 1}"
    if isinstance(value, dict):
        items = [
            (rng.choice(_NAMES) if rng.random() < chance * 0.1 else k, _mutate_value(v, rng, literals, chance))
            for k, v in value.items()
            if rng.random() > chance * 0.1
        ]  # fmt: skip
        return dict(items)
    if isinstance(value, list):
        mutated = [_mutate_value(v, rng, literals, chance) for v in value[:2000]]
        if mutated and rng.random() < chance * 0.2:
            mutated.append(rng.choice(mutated))
        return mutated[: rng.randrange(len(mutated))] if mutated and rng.random() < chance * 0.1 else mutated  # fmt: skip
    if isinstance(value, str) and rng.random() < chance * 0.3:
        return rng.choice(_NAMES)
    return value


def mutate_text(data: bytes, rng: random.Random) -> bytes:
    """Change words and lines of a text of numbers and names (ncnn's .param)."""
    if rng.random() < 0.2:
        return mutate_bytes(data, rng)
    lines = data.decode("utf-8", "replace").split("\n")
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(lines))
        kind = rng.randrange(5)
        if kind == 0:
            del lines[at]
            lines = lines or [""]
        elif kind == 1:
            lines.insert(at, rng.choice(lines))
        else:
            words = lines[at].split(" ")
            word = rng.randrange(len(words))
            key, equals, _ = words[word].partition("=")
            new = rng.choice((*map(str, _EXTREMES), "-1", "-23300", "nan", "1e99", *_NAMES[:7]))
            words[word] = f"{key}={new}" if equals else new
            lines[at] = " ".join(words)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


# --- zip --------------------------------------------------------------------------------------


def mutate_zip(data: bytes, rng: random.Random) -> bytes:
    """Mutate a member by what it is; remove, rename, repeat and blow up members; lie of sizes."""
    if rng.random() < 0.15:
        return mutate_bytes(data, rng)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(i.filename, archive.read(i), i.compress_type) for i in archive.infolist()]
    except Exception:
        return mutate_bytes(data, rng)
    at = rng.randrange(len(members))
    name, content, method = members[at]
    kind = rng.randrange(10)
    if kind == 0:
        del members[at]
    elif kind == 1:
        members[at] = (rng.choice(_NAMES) or "empty", content, method)
    elif kind == 2:
        members.append(members[at])
    elif kind == 3 and rng.random() < 0.01:
        members[at] = (name, bytes(300 << 20), zipfile.ZIP_DEFLATED)
    else:
        members[at] = (name, mutator_of(name, content)(content, rng), method)
    out = _written(members)
    if kind == 4:  # a size in the table of contents that is not the member's
        table = out.rfind(b"PK\x01\x02")
        if table > 0:
            patched = bytearray(out)
            struct.pack_into("<I", patched, table + rng.choice((20, 24, 42)), rng.choice(_EXTREMES) & 0xFFFFFFFF)  # fmt: skip
            return bytes(patched)
    return out


def _written(members: list[tuple[str, bytes, int]]) -> bytes:
    import warnings

    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w") as archive:
        warnings.simplefilter("ignore")  # two members of one name are wanted
        for name, content, method in members:
            archive.writestr(zipfile.ZipInfo(name.replace("\x00", "_")[:5000]), content, method)
    return buffer.getvalue()


def mutate_npy(data: bytes, rng: random.Random) -> bytes:
    """Other headers: shapes, dtypes, orders, lengths, versions."""
    if rng.random() < 0.3 or not data.startswith(b"\x93NUMPY"):
        return mutate_bytes(data, rng)
    length = int.from_bytes(data[8:10], "little")
    header = data[10 : 10 + length].decode("latin-1")
    shape = rng.choice(("()", "(0,)", "(1,)", "(99999999999,)", "(1, 3, 8, 8)", "(-1,)", "(2, 3)",
                        "None", "(1.5,)", "'a'", "(" * 200, "(4294967296, 4294967296)"))  # fmt: skip
    descr = rng.choice(("'<f4'", "'|u1'", "'|O'", "'<f8'", "'<U9'", "'<M8[s]'", "[('a', '<f4')]",
                        "None", "'x'", "'>f4'", "'|V1000000000'", "'<c8'", "'|b1'"))  # fmt: skip
    if rng.random() < 0.6:
        start = header.find("'shape':") + 8
        header = header[:start] + f" {shape}, }}"
    if rng.random() < 0.6:
        start, end = header.find("'descr':") + 8, header.find(", 'fortran")
        header = header[:start] + f" {descr}" + header[end:]
    if rng.random() < 0.1:
        header = rng.choice(("{}", "__import__('os')", "{'descr': '<f4'}", "(" * 5000))
    text = header.encode("latin-1", "replace") + b"\n"
    return data[:8] + struct.pack("<H", len(text)) + text + data[10 + length :]


def mutate_safetensors(data: bytes, rng: random.Random) -> bytes:
    """Mutate the JSON header, its length, or the tensors."""
    length = int.from_bytes(data[:8], "little")
    if rng.random() < 0.3 or 8 + length > len(data):
        return mutate_bytes(data, rng)
    header = mutate_json(data[8 : 8 + length], rng)
    size = len(header) if rng.random() < 0.9 else rng.choice(_EXTREMES)
    return struct.pack("<Q", size & ((1 << 64) - 1)) + header + data[8 + length :]


def mutator_of(name: str, content: bytes) -> Mutator:
    """The mutator of a file, by its name and its first bytes."""
    if content.startswith(b"PK"):
        return mutate_zip
    if content.startswith(b"\x93NUMPY"):
        return mutate_npy
    if name.endswith(".json"):
        return mutate_json
    if name.endswith(".param"):
        return mutate_text
    if name.endswith((".onnx", ".pb", ".mlmodel")):
        return mutate_protobuf
    if name.endswith((".tflite", ".ort")):
        return mutate_flatbuffer
    if name.endswith(".safetensors"):
        return mutate_safetensors
    return mutate_bytes
