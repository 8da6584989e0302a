"""Rounding a row of weights against a quadratic error.

With ``e`` the error of a row and ``H`` positive definite, the rounding wants a small e H e^T.
Weights are rounded one by one; after each, those not yet rounded move to where the error that is
made already is least, which has a closed form (Hassibi and Stork 1993, "Optimal Brain Surgeon";
Frantar et al. 2022, arXiv:2210.17323, whose Cholesky form is used here: with H^-1 = U^T U, U upper
triangular, rounding weight i by d moves weight j → i by -d U_ij / U_ii). Weights of the largest
H_ii go first. A row that comes out worse than the nearest integers keeps those.
"""

from __future__ import annotations

import numpy as np

from deploykit.tensors import Array

#: Weights that are rounded before those behind them move: one matrix product moves all of them.
_BLOCK = 32


def round_rows(steps: Array, hessian: Array, largest: int) -> Array:
    """Integers for rows of weights.

    Args:
        steps: Weights in units of their scale, (groups, rows, n).
        hessian: H of each group, (groups, n, n), symmetric and positive definite.
        largest: Integers lie in -largest..largest.

    Returns:
        float64 (groups, rows, n) of whole numbers; e H e^T of no row exceeds that of the nearest.
    """
    groups, _, n = steps.shape
    wanted = np.asarray(steps, np.float64)
    nearest = np.clip(np.rint(wanted), -largest, largest)
    order = np.argsort(-np.diagonal(hessian, axis1=1, axis2=2), axis=1, kind="stable")
    batch = np.arange(groups)[:, None]
    ordered = hessian[batch[..., None], order[:, :, None], order[:, None, :]]
    upper = np.linalg.cholesky(np.linalg.inv(ordered)).transpose(0, 2, 1)
    left = np.take_along_axis(wanted, order[:, None, :], axis=2)
    rounded = np.empty_like(left)
    for start in range(0, n, _BLOCK):
        stop = min(start + _BLOCK, n)
        offs = np.empty((*left.shape[:2], stop - start))
        for i in range(start, stop):
            rounded[..., i] = np.clip(np.rint(left[..., i]), -largest, largest)
            off = (left[..., i] - rounded[..., i]) / upper[:, i, i, None]
            left[..., i + 1 : stop] -= off[..., None] * upper[:, None, i, i + 1 : stop]
            offs[..., i - start] = off
        left[..., stop:] -= offs @ upper[:, start:stop, stop:]
    back = np.argsort(order, axis=1, kind="stable")
    found = np.take_along_axis(rounded, back[:, None, :], axis=2)
    better = row_errors(found - wanted, hessian) < row_errors(nearest - wanted, hessian)
    return np.where(better[..., None], found, nearest)


def row_errors(errors: Array, hessian: Array) -> Array:
    """e H e^T of each row, (groups, rows)."""
    found: Array = np.einsum("grn,grn->gr", errors @ hessian, errors)
    return found
