"""Ops that move elements, and the transposes that they do not need."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit_testing.tflite import (
    assert_float_parity,
    assert_int8_parity,
    stage_of,
)

X = "float[1,6,5,4] x"


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def check(body: str, inputs: str = X, outputs: str = "y", **constants: np.ndarray) -> list[str]:
    """Parity in float and int8; the operators of the float file."""
    model = stage_of(body, inputs, outputs, constants)
    written = assert_float_parity(model)
    assert_int8_parity(model, steps=0.0)  # nothing is computed: the integers are the same
    return written.ops


@pytest.mark.parametrize(
    ("shape", "inputs", "ops"),
    [
        ((1, 6), "float[1,6,1,1] x", ["RESHAPE"]),
        ((1, 6, 1, 1), "float[1,6] x", ["RESHAPE"]),
        ((1, 20), "float[1,1,5,4] x", ["RESHAPE"]),
        ((1, 120), X, ["TRANSPOSE", "RESHAPE"]),
        ((1, 6, 20), X, ["TRANSPOSE", "RESHAPE"]),
        ((1, 6, 5, 4), "float[1,6,20] x", ["RESHAPE", "TRANSPOSE"]),
        ((1, 3, 10, 4), X, ["TRANSPOSE", "RESHAPE", "TRANSPOSE"]),
        ((2, 3, 5, 4), "float[6,20] x", ["RESHAPE", "TRANSPOSE"]),
    ],
)
def test_reshape_transposes_only_where_elements_move(
    shape: tuple[int, ...], inputs: str, ops: list[str]
) -> None:
    assert check("y = Reshape(x, s)", inputs, s=ints(*shape)) == ops


@pytest.mark.parametrize("rank", [2, 3, 4, 5])
def test_every_transpose(rank: int) -> None:
    generator = np.random.default_rng(rank)
    for _ in range(4):
        perm = [int(a) for a in generator.permutation(rank)]
        shape = [int(d) for d in generator.integers(1, 4, rank)]
        model = stage_of(
            f"y = Transpose<perm={perm}>(x)", f"float[{','.join(map(str, shape))}] x", "y"
        )
        assert_float_parity(model, kernels=("reference",))


def test_a_transpose_that_only_moves_axes_of_length_1_is_a_reshape() -> None:
    ops = check("y = Transpose<perm=[0,2,3,1]>(x)", "float[1,6,1,1] x")
    assert ops == ["RESHAPE"]


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_concat(axis: int) -> None:
    shape = [1, 6, 5, 4]
    shape[axis] = 3
    other = f"float[{','.join(map(str, shape))}] z"
    model = stage_of(f"y = Concat<axis={axis}>(x, z)", f"{X}, {other}", "y")
    assert assert_float_parity(model).ops == ["CONCATENATION"]
    written = assert_int8_parity(model)
    assert written.ops == ["CONCATENATION"]
    assert written.is_one_partition
    scales = {tuple(t.quantization.scale) for t in written.tensors.values()}
    assert len(scales) == 1


def test_split() -> None:
    assert check("y, z = Split<axis=1>(x, s)", outputs="y, z", s=ints(3, 3)) == ["SPLIT"]
    assert check("y, z = Split<axis=1>(x, s)", outputs="y, z", s=ints(2, 4)) == ["SLICE", "SLICE"]
    assert check("y, z = Split<axis=3>(x, s)", outputs="y, z", s=ints(2, 2)) == ["SPLIT"]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_slice(data: st.DataObject) -> None:
    shape = [1, 6, 5, 4]
    axes = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=3, unique=True))
    starts = [data.draw(st.integers(0, shape[a] - 1)) for a in axes]
    ends = [data.draw(st.integers(s + 1, shape[a])) for s, a in zip(starts, axes, strict=True)]
    steps = [data.draw(st.integers(1, 3)) for _ in axes]
    ops = check(
        "y = Slice(x, s, e, a, t)", s=ints(*starts), e=ints(*ends), a=ints(*axes), t=ints(*steps)
    )
    assert ops == (["SLICE"] if set(steps) == {1} else ["STRIDED_SLICE"])


@pytest.mark.parametrize(
    ("mode", "ops"),
    [
        ("constant", ["PAD"]),
        ("reflect", ["MIRROR_PAD"]),
        ("edge", ["GATHER", "GATHER"]),
        ("wrap", ["GATHER", "GATHER"]),
    ],
)
def test_pad_modes(mode: str, ops: list[str]) -> None:
    assert check(f'y = Pad<mode="{mode}">(x, p)', p=ints(0, 0, 1, 2, 0, 0, 0, 1)) == ops


def test_pad_with_a_value() -> None:
    model = stage_of(
        "y = Pad(x, p, v)", X, "y", {"p": ints(0, 1, 1, 2, 0, 0, 0, 1), "v": np.float32(1.5)}
    )
    assert assert_float_parity(model).ops == ["PADV2"]
    assert_int8_parity(model)


@pytest.mark.parametrize(
    ("indices", "ops"),
    [
        (ints(2, 3, 4), ["SLICE"]),
        (ints(5, 0, 2), ["GATHER"]),
        (np.int64(3), ["SLICE", "RESHAPE"]),
    ],
)
@pytest.mark.parametrize("axis", [1, 2, 3])
def test_gather(axis: int, indices: np.ndarray, ops: list[str]) -> None:
    found = check(f"y = Gather<axis={axis}>(x, i)", "float[1,6,7,8] x", i=indices)
    assert [op for op in found if op != "TRANSPOSE"] == ops


def test_gather_by_a_matrix_of_indices() -> None:
    for axis in (1, 2):
        check(f"y = Gather<axis={axis}>(x, i)", i=np.array([[0, 1], [3, 2]]))


@pytest.mark.parametrize(
    ("inputs", "shape"),
    [
        ("float[1,6,1,1] x", (1, 6, 4, 5)),
        ("float[6,1,1] x", (1, 6, 4, 5)),
        ("float[1,3] x", (4, 3)),
    ],
)
def test_expand(inputs: str, shape: tuple[int, ...]) -> None:
    assert check("y = Expand(x, s)", inputs, s=ints(*shape))[-1] == "BROADCAST_TO"


def test_an_input_that_is_passed_through() -> None:
    ops = check("y = Reshape(x, s)", s=ints(1, 6, 5, 4))
    assert ops == ["RESHAPE"]


@pytest.mark.parametrize("count", [5, 6, 9, 11, 14])
def test_a_concat_of_many_stays_in_one_partition(count: int) -> None:
    """Delegates take five operands at most; the joined ones are neighbours, in order."""
    names = ", ".join(f"x{i}" for i in range(count))
    inputs = ", ".join(f"float[1,{1 + i % 3},4,4] x{i}" for i in range(count))
    model = stage_of(f"y = Concat<axis=1>({names})", inputs, "y")
    written = assert_float_parity(model, tolerance=0)
    assert set(written.ops) == {"CONCATENATION"}
    assert written.is_one_partition
    assert assert_int8_parity(model, steps=0).is_one_partition


def test_one_pixel_is_not_flattened_for_a_linear_layer() -> None:
    constants = {
        "s": np.array([1, 4]),
        "W": np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32),
        "B": np.zeros(5, np.float32),
    }
    model = stage_of(
        "r = Relu(x) f = Reshape(r, s) y = Gemm<transB=1>(f, W, B)",
        "float[1,4,1,1] x",
        "y",
        constants,
    )
    assert assert_float_parity(model).ops == ["RELU", "FULLY_CONNECTED"]
    assert assert_int8_parity(model).is_one_partition
