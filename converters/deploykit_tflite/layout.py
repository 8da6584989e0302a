"""Layouts by name: the one module of this target in which a bare permutation stands.

ONNX holds feature maps as NCHW, TFLite computes in NHWC. Every value of rank 4 is *held* NHWC in
the file, values of any other rank as ONNX has them; weights have layouts of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

#: For each axis of the result, the axis of the operand: ``result = operand.transpose(perm)``.
NHWC_FROM_NCHW = (0, 2, 3, 1)
NCHW_FROM_NHWC = (0, 3, 1, 2)
#: Convolution weights: TFLite reads output channels, height, width, input channels.
OHWI_FROM_OIHW = (0, 2, 3, 1)
#: Depthwise weights: ONNX has (C * multiplier, 1, H, W), TFLite 1, H, W, C * multiplier.
HWC1_FROM_OIHW = (1, 2, 3, 0)
#: Transposed convolution: ONNX has input channels first.
OHWI_FROM_IOHW = (1, 2, 3, 0)
#: Channel shuffle: (pixels, groups, channels of a group) → (pixels, channels of a group, groups).
SWAP_LAST_TWO_OF_3 = (0, 2, 1)

HELD_RANK = 4


def held_order(rank: int) -> tuple[int, ...]:
    """The ONNX axes of a value in the order in which the file holds them."""
    return NHWC_FROM_NCHW if rank == HELD_RANK else tuple(range(rank))


def held_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of a value as the file holds it."""
    return tuple(shape[axis] for axis in held_order(len(shape)))


def held_axis(axis: int, rank: int) -> int:
    """Where an ONNX axis of a value stands in the file."""
    return held_order(rank).index(axis)


def held_array(array: Array) -> Array:
    """A constant as the file holds it; a view, nothing is copied."""
    return array.transpose(held_order(array.ndim))


def swap_last_two(rank: int) -> tuple[int, ...]:
    """The permutation that transposes the matrices of a stack."""
    return (*range(rank - 2), rank - 1, rank - 2)


def axis_last(axis: int, rank: int) -> tuple[int, ...]:
    """The permutation that brings one axis to the end."""
    return (*(a for a in range(rank) if a != axis), axis)


def inverted(permutation: Sequence[int]) -> tuple[int, ...]:
    """The permutation that undoes another."""
    return tuple(int(a) for a in np.argsort(permutation))


def moves_data(shape: Sequence[int], permutation: Sequence[int]) -> bool:
    """Whether transposing a tensor changes the order of its elements in memory.

    It does not where only axes of length 1 change places: a reshape does the same then.
    """
    real = [axis for axis in permutation if shape[axis] != 1]
    return real != sorted(real)
