"""Layouts."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deploykit_tflite import layout


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_held_shape_and_axes_agree(shape: list[int]) -> None:
    held = layout.held_shape(shape)
    for axis, length in enumerate(shape):
        assert held[layout.held_axis(axis, len(shape))] == length
    array = np.arange(np.prod(shape)).reshape(shape)
    assert layout.held_array(array).shape == held


@given(st.data())
def test_moves_data_is_about_memory(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    permutation = data.draw(st.permutations(range(len(shape))))
    array = np.arange(np.prod(shape)).reshape(shape)
    moved = array.transpose(permutation).reshape(-1)
    if not layout.moves_data(shape, permutation):
        assert (moved == array.reshape(-1)).all()
    elif sorted(d for d in shape if d > 1) == [d for d in shape if d > 1] and min(shape) > 1:
        assert (moved != array.reshape(-1)).any()


@given(st.permutations(range(5)))
def test_inverted(permutation: list[int]) -> None:
    array = np.arange(2 * 3 * 4 * 5 * 6).reshape(2, 3, 4, 5, 6)
    back = array.transpose(permutation).transpose(layout.inverted(permutation))
    assert (back == array).all()
