from __future__ import annotations

import io
import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deploykit.runners.protocol import MAGIC, ProtocolError, read_message, write_message


class DribblingStream(io.BytesIO):
    """A pipe that moves at most seven bytes a call."""

    def write(self, data: Any) -> int:
        return super().write(bytes(data[:7]))

    def readinto(self, buffer: Any) -> int:
        return super().readinto(buffer[:7])


ARRAYS = hnp.arrays(
    dtype=st.one_of(
        hnp.boolean_dtypes(), hnp.integer_dtypes(), hnp.floating_dtypes(sizes=(16, 32, 64))
    ),
    shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
)


@given(arrays=st.dictionaries(st.text(max_size=8), ARRAYS, max_size=4), note=st.text(max_size=20))
def test_what_is_written_is_read(arrays: dict[str, Any], note: str) -> None:
    stream = DribblingStream()
    write_message(stream, {"note": note}, arrays)
    write_message(stream, {"note": "second"}, {})
    stream.seek(0)
    message = read_message(stream)
    assert message is not None
    header, results = message
    assert header == {"note": note}
    assert list(results) == list(arrays)
    for name, array in arrays.items():
        assert results[name].dtype == array.dtype
        assert results[name].shape == array.shape
        assert results[name].tobytes() == array.tobytes()
    assert read_message(stream) == ({"note": "second"}, {})
    assert read_message(stream) is None


def test_an_array_is_sent_from_its_own_memory() -> None:
    class Recorder:
        def __init__(self) -> None:
            self.owners: list[Any] = []

        def write(self, data: memoryview) -> int:
            self.owners.append(data.obj)
            return data.nbytes

        def readinto(self, _: memoryview) -> int:
            raise AssertionError("nothing is read")

    array = np.zeros((8, 1 << 16), dtype=np.float32)
    stream = Recorder()
    write_message(stream, {}, {"x": array})
    assert np.shares_memory(stream.owners[-1], array)


@pytest.mark.parametrize("cut", [1, 7, 9, 30, -1])
def test_a_stream_that_ends_inside_of_a_message_is_an_error(cut: int) -> None:
    stream = io.BytesIO()
    write_message(stream, {"a": 1}, {"x": np.arange(5)})
    with pytest.raises(EOFError):
        read_message(io.BytesIO(stream.getvalue()[:cut]))


def message(header: bytes) -> bytes:
    return struct.pack("<4sI", MAGIC, len(header)) + header


@pytest.mark.parametrize(
    "data",
    [
        b"INFO: created a delegate\n",
        struct.pack("<4sI", MAGIC, 1 << 31),
        message(b"{"),
        message(b"[]"),
        message(b'{"no arrays": 1}'),
        message(json.dumps({"arrays": [["x", "no dtype", [1]]]}).encode()),
        message(json.dumps({"arrays": [["x", "|O", [1]]]}).encode()) + b"\0" * 8,
        message(json.dumps({"arrays": [["x", "<f4", [-1, 2]]]}).encode()),
    ],
)
def test_bytes_that_are_no_message_are_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_message(io.BytesIO(data))


def test_elements_that_are_no_numbers_are_refused_before_anything_is_written() -> None:
    stream = io.BytesIO()
    with pytest.raises(TypeError, match="'bad'"):
        write_message(stream, {}, {"good": np.zeros(3), "bad": np.array(["text"])})
    assert stream.getvalue() == b""
