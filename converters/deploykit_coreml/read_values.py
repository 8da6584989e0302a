"""Constants and types of a program's messages, and the weight file.

The weight file: a header of 64 bytes, then for each constant a record of 64 bytes (little endian:
sentinel 0xDEADBEEF, element type, number of bytes, offset of the data) and its data.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deploykit.limits import elements_of
from deploykit.tensors import Array
from deploykit_coreml.fit_palette import unpack_indices
from deploykit_coreml.package_format import MODEL_PATH

_RECORD = struct.Struct("<IIQQQ")
_SENTINEL = 0xDEADBEEF

#: Number in a program's types → name of the element type.
_DTYPES = {
    1: "bool",
    2: "text",
    10: "float16",
    11: "float32",
    12: "float64",
    21: "int8",
    22: "int16",
    23: "int32",
    24: "int64",
    31: "uint8",
    32: "uint16",
    33: "uint32",
    34: "uint64",
    35: "uint4",
    38: "uint6",
}

#: Number in the weight file's records → name of the element type.
_BLOB_DTYPES = {
    1: "float16",
    2: "float32",
    3: "uint8",
    4: "int8",
    6: "int16",
    7: "uint16",
    11: "uint4",
    13: "uint6",
    14: "int32",
    15: "uint32",
}

#: Element types smaller than a byte → bits.
_BITS = {"uint4": 4, "uint6": 6}


@dataclass(frozen=True)
class ValueType:
    """Type of a value in a program.

    Attributes:
        dtype: numpy's name of the element type, ``text``, ``uint4`` or ``uint6``.
        shape: Static shape; () of a single element.
        kind: ``tensor``, ``list`` or ``dictionary``.
    """

    dtype: str
    shape: tuple[int, ...]
    kind: str = "tensor"


@dataclass
class BlobFile:
    """The weight file of a package.

    Attributes:
        folder: What programs call ``@model_path``.
        size: Its size in bytes, known once a value was read.
    """

    folder: Path
    size: int = 0
    _contents: dict[str, memoryview] = field(default_factory=dict)

    def read(self, file_name: str, offset: int, type_: ValueType) -> Array:
        """The constant whose record is at ``offset``.

        Raises:
            ValueError: the record is damaged, or not what the program says.
            LookupError: an element type that is not known here, or a file outside of the package.
        """
        content = self._content(file_name)
        if offset + _RECORD.size > len(content):
            raise ValueError(f"the weight file ends before a record at {offset}")
        sentinel, code, size, start, _ = _RECORD.unpack_from(content, offset)
        dtype = _BLOB_DTYPES.get(code)
        if sentinel != _SENTINEL:
            raise ValueError(f"the weight file has no record at {offset}")
        if dtype != type_.dtype:
            raise ValueError(f"the weight file holds {dtype or code} where {type_.dtype} is said")
        count = elements_of(type_.shape)
        bits = _BITS.get(dtype, 8 * np.dtype(dtype if dtype not in _BITS else "uint8").itemsize)
        if size * 8 < count * bits or start + size > len(content):
            raise ValueError(f"the weight file is too short for {count} elements of {dtype}")
        data = content[start : start + -(-count * bits // 8)]
        if dtype in _BITS:
            packed = np.frombuffer(data, np.uint8)
            return unpack_indices(packed, bits, count).reshape(type_.shape)
        return np.frombuffer(data, dtype).reshape(type_.shape)

    def _content(self, file_name: str) -> memoryview:
        if file_name not in self._contents:
            prefix, _, rest = file_name.partition("/")
            file = (self.folder / rest).resolve()
            if prefix != MODEL_PATH or not file.is_relative_to(self.folder.resolve()):
                raise LookupError(f"weights in {file_name!r}, outside of the package")
            content = memoryview(file.read_bytes())
            self.size += len(content)
            self._contents[file_name] = content
        return self._contents[file_name]


def read_type(message: Any) -> ValueType:
    """A type's message.

    Raises:
        LookupError: a type that is not known here.
    """
    kind = message.WhichOneof("type")
    if kind == "dictionaryType":
        return ValueType("float64", (), "dictionary")
    if kind == "listType":
        inner = read_type(message.listType.type)
        return ValueType(inner.dtype, inner.shape, "list")
    if kind != "tensorType":
        raise LookupError(f"a value of type {kind}")
    tensor = message.tensorType
    if tensor.dataType not in _DTYPES:
        raise LookupError(f"element type {tensor.dataType}")
    shape = []
    for dimension in tensor.dimensions:
        if dimension.WhichOneof("dimension") != "constant":
            raise LookupError("a dimension that is not constant")
        shape.append(int(dimension.constant.size))
    return ValueType(_DTYPES[tensor.dataType], tuple(shape))


def read_value(message: Any, blobs: BlobFile) -> Array | str | tuple[str, ...]:
    """A constant's message: an array, a text, or a list of texts.

    Raises:
        LookupError: a kind of constant that is not known here.
        TypeError: it has numbers where its type says texts.
        ValueError: it does not fit its own type, or the weight file is damaged.
    """
    type_ = read_type(message.type)
    where = message.WhichOneof("value")
    if where == "blobFileValue":
        return blobs.read(message.blobFileValue.fileName, int(message.blobFileValue.offset), type_)
    immediate = message.immediateValue
    if immediate.WhichOneof("value") == "list":
        texts = [read_value(v, blobs) for v in immediate.list.values]
        if not all(isinstance(t, str) for t in texts):
            raise LookupError("a list of something else than texts")
        return tuple(str(t) for t in texts)
    if immediate.WhichOneof("value") != "tensor":
        raise LookupError(f"a constant of kind {immediate.WhichOneof('value')}")
    return _read_tensor(immediate.tensor, type_)


def _read_tensor(tensor: Any, type_: ValueType) -> Array | str | tuple[str, ...]:
    kind = tensor.WhichOneof("value")
    if kind == "strings":
        texts = tuple(tensor.strings.values)
        return texts[0] if type_.shape == () and len(texts) == 1 else texts
    if kind == "bytes" and type_.dtype in _BITS:
        packed = np.frombuffer(tensor.bytes.values, np.uint8)
        count = elements_of(type_.shape)
        return unpack_indices(packed, _BITS[type_.dtype], count).reshape(type_.shape)
    if kind == "bytes":
        return np.frombuffer(tensor.bytes.values, type_.dtype).reshape(type_.shape)
    if kind is None:  # an empty list is not written at all
        if elements_of(type_.shape):
            raise ValueError(f"a constant of shape {type_.shape} has no elements")
        return np.zeros(type_.shape, type_.dtype)
    return np.asarray(list(getattr(tensor, kind).values), type_.dtype).reshape(type_.shape)
