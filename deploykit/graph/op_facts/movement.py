"""Ops that move elements, or show them under another shape."""

from __future__ import annotations

from deploykit.graph.op_facts import intervals
from deploykit.graph.op_facts.declaration import DOMAIN, Channels, Kind, Op
from deploykit.graph.op_facts.pools import RESIZE


def _selecting(
    op_type: str, spelling: str, cost: str, channels: Channels = Channels.PINS, domain: str = ""
) -> Op:
    kind, interval = Kind.MOVEMENT, intervals.first
    return Op(op_type, spelling, cost, kind, channels, interval, domain, selects=True)


def _joining(op_type: str, spelling: str, domain: str = "") -> Op:
    kind, interval = Kind.MOVEMENT, intervals.joined
    return Op(op_type, spelling, "move", kind, Channels.MOVES, interval, domain, joins=True)


MOVEMENT = (
    _joining("Concat", "axis not negative"),
    _selecting("Split", "axis not negative; sizes a constant input", "move", Channels.MOVES),
    _selecting(
        "Slice",
        "starts, ends, axes, steps constant, not negative, inside of the shape",
        "pick",
        Channels.MOVES,
    ),
    _selecting(
        "Reshape",
        "constant target shape without 0 and -1; also Flatten, (Un)Squeeze",
        "view",
        Channels.KEEPS_OUTER,
    ),
    _selecting("Transpose", "perm explicit", "move"),
    Op(
        "Pad",
        "constant mode; pads for every axis; value a constant scalar",
        "move",
        Kind.MOVEMENT,
        Channels.KEEPS_OUTER,
        intervals.padded,
        structural=(2,),
        undamped=True,
    ),
    RESIZE,
    _selecting("Gather", "constant indices, not negative", "pick", Channels.MOVES),
    _selecting("Expand", "constant shape", "move"),
)

#: ONNX functions of ours, which stand at the end of the canonical set.
MOVEMENT_FUNCTIONS = (
    _selecting("ChannelShuffle", "groups explicit; NCHW", "move", Channels.MOVES, DOMAIN),
    _joining("ConcatShuffleSplit", "two inputs, two outputs; groups explicit; NCHW", DOMAIN),
)
