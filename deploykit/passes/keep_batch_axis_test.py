from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.graph.reading import read_ints
from deploykit.passes.base import run_passes
from deploykit.passes.canonicalize import Canonicalize
from deploykit.passes.eliminate_identities import EliminateIdentities
from deploykit.passes.infer_shapes import InferShapes
from deploykit.passes.inline_functions import InlineFunctions
from deploykit.passes.keep_batch_axis import KeepBatchAxis, coalesce_axes
from deploykit.passes.remove_unused import RemoveUnused
from deploykit_testing.graphs import assert_same_numbers, parse


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=5),
    data=st.data(),
)
def test_the_numbers_stay_and_the_batch_axis_too(lengths: list[int], data: st.DataObject) -> None:
    shape = [1, *lengths]
    perm = data.draw(st.permutations(range(len(shape))))
    sizes = ",".join(map(str, shape))
    result = ",".join(str(shape[axis]) for axis in perm)
    text = f"g (float[{sizes}] x) => (float[{result}] y) {{ y = Transpose <perm = {perm}> (x) }}"
    model = parse(text)
    run_passes(model, [InlineFunctions(), InferShapes(), Canonicalize(), KeepBatchAxis()])
    assert_same_numbers(parse(text), model)
    if shape[perm[0]] == 1:
        for node in model.graph:
            assert node.op_type == "Reshape" or read_ints(node, "perm", ())[0] == 0


def test_windows_of_a_map_move_three_axes_and_the_channels_with_them() -> None:
    # height and width in 8 windows of 7 each: (1, 8, 7, 8, 7, 64)
    assert coalesce_axes((1, 8, 7, 8, 7, 64), (0, 1, 3, 2, 4, 5)) == (
        (8, 7, 8, 7 * 64),
        [0, 1, 3, 2, 4],
    )
    assert coalesce_axes((1, 4, 1, 3), (2, 1, 0, 3)) == ((12,), [0, 1])


def test_a_batch_of_several_is_left_alone() -> None:
    text = "g (float[2,1,3] x) => (float[1,2,3] y) { y = Transpose <perm = [1, 0, 2]> (x) }"
    model = parse(text)
    notes = run_passes(model, [InlineFunctions(), InferShapes(), Canonicalize(), KeepBatchAxis()])
    assert [n.op_type for n in model.graph] == ["Transpose"]
    assert any("more than one sample" in note.reason for note in notes)


def test_a_batch_axis_that_was_taken_off_comes_back() -> None:
    text = """g (float[1,3,5,4] x) => (float[1,3,4,5] y)
      <int64[3] off = {3, 5, 4}, int64[4] on = {1, 3, 4, 5}> {
        a = Reshape (x, off)
        t = Transpose <perm = [0, 2, 1]> (a)
        y = Reshape (t, on) }"""
    model = parse(text)
    first = [InlineFunctions(), InferShapes(), Canonicalize()]
    run_passes(model, [*first, KeepBatchAxis(), EliminateIdentities(), RemoveUnused()])
    assert_same_numbers(parse(text), model)
    moves = [n for n in model.graph if n.op_type == "Transpose"]
    assert [read_ints(n, "perm", ()) for n in moves] == [(0, 1, 3, 2)]
    assert len(list(model.graph)) <= 2
