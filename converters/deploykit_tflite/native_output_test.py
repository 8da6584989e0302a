"""What is written to the descriptors is read, and does not reach the terminal."""

from __future__ import annotations

import os

import pytest

from deploykit_tflite.native_output import captured_output


def test_what_native_code_writes_is_read_and_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    with captured_output() as words:
        os.write(2, b"no memory\n")
        os.write(1, b"nor any left\n")
        assert words() == "no memory\nnor any left\n"
    os.write(2, b"after\n")
    shown = capfd.readouterr()
    assert (shown.out, shown.err) == ("", "after\n")
