"""Where bilinear resizing samples: MIL's formulas, for the lowering and for the executor."""

from __future__ import annotations

import numpy as np

from deploykit.tensors import Array


def bilinear_points(mode: str, size: int, output: int) -> Array:
    """Coordinates in an input of ``size`` that ``output`` results sample along one axis.

    The formulas are those of MIL's ``resize_bilinear``.

    Args:
        mode: ``UNALIGN_CORNERS``, ``STRICT_ALIGN_CORNERS``, ``ALIGN_CORNERS`` or ``DEFAULT``.
        size: Length of the input.
        output: Length of the output.

    Returns:
        float64 (output,), inside of 0..size-1.

    Raises:
        LookupError: a mode that is not known here.
    """
    steps = np.arange(output, dtype=np.float64)
    if mode == "UNALIGN_CORNERS":
        spacing = size / output
        points = steps * spacing + 0.5 * spacing - 0.5
    elif mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        spacing = (size - 1) / (output - 1) if output > 1 else 0.0
        points = steps * spacing
        if mode == "ALIGN_CORNERS" and output == 1:
            points = points + (size - 1) / 2
    elif mode == "DEFAULT":
        spacing = (size - size / output) / (output - 1) if output > 1 else 0.0
        points = steps * spacing
    else:
        raise LookupError(f"sampling mode {mode!r}")
    return points.clip(0, size - 1)


def interpolation_matrix(points: Array, size: int) -> Array:
    """The matrix that samples a vector at points between its elements: float32 (n, size)."""
    below = np.floor(points).astype(int).clip(0, size - 1)
    above = np.minimum(below + 1, size - 1)
    share = points - below
    matrix = np.zeros((len(points), size), np.float64)
    rows = np.arange(len(points))
    np.add.at(matrix, (rows, below), 1 - share)
    np.add.at(matrix, (rows, above), share)
    return matrix.astype(np.float32)
