"""Shapes and axes: ONNX has a batch axis, an ncnn blob has none.

A value of shape (1, C, H, W) is the blob (C, H, W); in general the first axis, whose length must be
1, is omitted, and the others keep their order and their row-major layout. Blobs have one to four
axes; ncnn calls them w, hw, chw, cdhw. Axis numbers in layers count from the outermost, as here.
"""

from __future__ import annotations

from collections.abc import Sequence

from deploykit.graph.node_fields import FormError

Shape = tuple[int, ...]

MOST_AXES = 4

#: Names of a blob's axes, outermost first, by their number.
_NAMES = {1: "w", 2: "hw", 3: "chw", 4: "cdhw"}

#: Parameter of Input, Reshape and MemoryData that holds the length of an axis.
_LENGTH_PARAMS = {"w": 0, "h": 1, "c": 2, "d": 11}

#: ``Permute`` names the blob's axes in the order of its result, innermost first.
_ORDERS: dict[int, Sequence[str]] = {
    1: ("w",),
    2: ("wh", "hw"),
    3: ("whc", "hwc", "wch", "cwh", "hcw", "chw"),
    4: (
        *("whdc", "hwdc", "wdhc", "dwhc", "hdwc", "dhwc"),
        *("whcd", "hwcd", "wchd", "cwhd", "hcwd", "chwd"),
        *("wdch", "dwch", "wcdh", "cwdh", "dcwh", "cdwh"),
        *("hdcw", "dhcw", "hcdw", "chdw", "dchw", "cdhw"),
    ),
}


def blob_shape(shape: Sequence[int], what: str = "a value") -> Shape:
    """The blob's shape of a value's.

    Raises:
        FormError: a batch other than 1, or no axis, or more than four, behind it.
    """
    if not shape or shape[0] != 1:
        raise FormError(
            f"{what} has shape {tuple(shape)}: ncnn holds one sample, without a batch axis, so the "
            "first axis must have length 1",
            "export the model with batch 1, and do not move the batch axis",
        )
    if not 2 <= len(shape) <= MOST_AXES + 1:
        raise FormError(
            f"{what} has shape {tuple(shape)}: a blob has one to four axes behind the batch",
            "split the op into ones with fewer axes",
        )
    if 0 in shape:
        raise FormError(f"{what} has shape {tuple(shape)}: an empty blob")
    return tuple(int(d) for d in shape[1:])


def blob_axis(axis: int, rank: int) -> int:
    """The blob's axis of a value's.

    Args:
        axis: Of the value, may be negative.
        rank: Number of axes of the value, batch included.

    Raises:
        FormError: it is the batch axis.
    """
    axis = axis % rank
    if axis == 0:
        raise FormError(
            "it works along the batch axis, which an ncnn blob does not have",
            "export the model with batch 1, and leave the batch axis alone",
        )
    return axis - 1


def length_params(shape: Shape) -> dict[int, int]:
    """Parameters of an Input, Reshape or MemoryData layer that say a blob's shape."""
    names = _NAMES[len(shape)]
    return dict(sorted((_LENGTH_PARAMS[n], d) for n, d in zip(names, shape, strict=True)))


def permute_order(permutation: Sequence[int]) -> int:
    """``order_type`` of Permute.

    Args:
        permutation: Axis of the blob that each axis of the result is, outermost first.
    """
    names = _NAMES[len(permutation)]
    wanted = "".join(names[axis] for axis in reversed(permutation))
    return _ORDERS[len(permutation)].index(wanted)


def ranked(shape: Sequence[int], rank: int) -> Shape:
    """A shape with axes of length 1 put before it, as numpy's broadcasting does."""
    return (1,) * (rank - len(shape)) + tuple(shape)
