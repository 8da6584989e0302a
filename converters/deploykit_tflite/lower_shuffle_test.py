"""Channel shuffles."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.errors import UnsupportedOpsError
from deploykit_testing.tflite import (
    assert_float_parity,
    assert_int8_parity,
    stage_of,
    write,
)


@pytest.mark.parametrize(("channels", "groups"), [(8, 2), (12, 3), (12, 4), (6, 6), (5, 1)])
def test_shuffle(channels: int, groups: int) -> None:
    model = stage_of(
        f"y = deploykit.ChannelShuffle<groups={groups}>(x)", f"float[1,{channels},5,3] x", "y"
    )
    written = assert_float_parity(model, tolerance=0)
    assert "GATHER" not in written.ops
    assert written.is_one_partition
    assert assert_int8_parity(model, steps=0).is_one_partition


@pytest.mark.parametrize("channels", [8, 7, 58])
def test_concat_shuffle_split(channels: int) -> None:
    """The two outputs are halves: channels may be odd in sum's half, as 58 + 58 is not."""
    model = stage_of(
        "y, w = deploykit.ConcatShuffleSplit<groups=2>(x, z)",
        f"float[1,{channels},5,3] x, float[1,{channels},5,3] z",
        "y, w",
    )
    written = assert_float_parity(model, tolerance=0)
    assert written.ops == ["CONCATENATION", "RESHAPE", "TRANSPOSE", "RESHAPE", "SPLIT"]
    assert written.is_one_partition
    in_int8 = assert_int8_parity(model, steps=0)
    assert in_int8.ops == written.ops  # one scale: no QUANTIZE among them
    assert in_int8.is_one_partition


def test_unequal_groups_are_refused() -> None:
    model = stage_of("y = deploykit.ChannelShuffle<groups=2>(x)", "float[1,8,5,3] x", "y")
    for node in model.graph.graph:
        node.attributes["groups"] = type(node.attributes["groups"])(
            "groups", node.attributes["groups"].type, 3
        )
    with pytest.raises(UnsupportedOpsError, match="3 groups"):
        write(model)


def test_many_pixels() -> None:
    model = stage_of("y = deploykit.ChannelShuffle<groups=2>(x)", "float[1,116,28,28] x", "y")
    inputs = {"x": np.arange(116 * 28 * 28, dtype=np.float32).reshape(1, 116, 28, 28)}
    assert_float_parity(model, inputs, tolerance=0)
