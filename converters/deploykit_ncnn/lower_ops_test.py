"""Every op of the canonical set: lowered, saved, run by ncnn, compared with ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploykit.errors import UnsupportedModelError, UnsupportedOpsError
from deploykit.graph.ops import CANONICAL_OPS
from deploykit_ncnn.lower_graph import lowering_table
from deploykit_testing.ncnn import (
    assert_float_parity,
    normal,
    random_inputs,
    stage_of,
    write,
)

IMAGE = "float[1,4,6,8] x"
FEW = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))


def ints(*values: int) -> np.ndarray:
    return np.asarray(values, np.int64)


def test_every_canonical_op_has_a_lowering_or_a_reason() -> None:
    table = lowering_table()
    known = table.ops | set(table.refused)
    assert {(op.domain, op.op_type) for op in CANONICAL_OPS} <= known


UNARY = {
    "y = Relu(x)": "ReLU",
    "y = Sigmoid(x)": "Sigmoid",
    "y = Tanh(x)": "TanH",
    "y = Exp(x)": "UnaryOp",
    "y = Abs(x)": "UnaryOp",
    "y = Neg(x)": "UnaryOp",
    "a = Abs(x) y = Sqrt(a)": "UnaryOp",
    "y = LeakyRelu<alpha=0.1>(x)": "ReLU",
    "y = Elu<alpha=0.7>(x)": "ELU",
    "y = HardSigmoid<alpha=0.3, beta=0.4>(x)": "HardSigmoid",
    "y = HardSwish(x)": "HardSwish",
    'y = Gelu<approximate="none">(x)': "GELU",
    'y = Gelu<approximate="tanh">(x)': "GELU",
    "y = Softmax<axis=1>(x)": "Softmax",
    "y = Softmax<axis=2>(x)": "Softmax",
    "y = Softmax<axis=3>(x)": "Softmax",
    "y = deploykit.Silu(x)": "Swish",
}


@pytest.mark.parametrize("body", UNARY)
def test_unary(body: str, tmp_path: Path) -> None:
    model = stage_of(body, IMAGE, "y")
    inputs = random_inputs(model, low=-8, high=8)
    inputs["x"].reshape(-1)[:4] = (-3.0, 3.0, 0.0, -8.0)
    written = assert_float_parity(tmp_path, model, inputs)
    assert written.types[UNARY[body]] >= 1


@pytest.mark.parametrize("shape", ["1,5", "1,6,7", "1,3,5,7", "1,2,3,5,7"])
def test_a_blob_has_one_to_four_axes(shape: str, tmp_path: Path) -> None:
    assert_float_parity(tmp_path, stage_of("y = HardSwish(x)", f"float[{shape}] x", "y"))


@pytest.mark.parametrize(("low", "high"), [(0.0, 6.0), (-1.0, 1.0), (0.5, None), (None, 0.5)])
def test_clip(low: float | None, high: float | None, tmp_path: Path) -> None:
    bounds = {k: np.float32(v) for k, v in (("lo", low), ("hi", high)) if v is not None}
    operands = ", ".join(k if k in bounds else "" for k in ("lo", "hi")).rstrip(", ")
    model = stage_of(f"y = Clip(x, {operands})", IMAGE, "y", bounds)
    assert assert_float_parity(tmp_path, model).types["Clip"] == 1


@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 1, 1), (1, 1, 8)])
def test_prelu(shape: tuple[int, ...], tmp_path: Path) -> None:
    model = stage_of("y = PRelu(x, s)", IMAGE, "y", {"s": normal(*shape)})
    written = assert_float_parity(tmp_path, model)
    assert ("PReLU" in written.types) == (shape[-1] == 1)


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Max", "Min"])
@pytest.mark.parametrize("shape", [(), (1,), (4, 1, 1), (1, 1, 6, 1), (8,), (1, 4, 6, 8)])
def test_binary_with_a_constant(op: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    constant = np.asarray(np.abs(normal(*shape)) + np.float32(0.5), np.float32)
    for body in (f"y = {op}(x, c)", f"y = {op}(c, x)"):
        model = stage_of(body, IMAGE, "y", {"c": constant})
        inputs = random_inputs(model, low=0.5, high=2.0)
        written = assert_float_parity(tmp_path, model, inputs)
        assert written.types["MemoryData"] == (constant.size > 1)


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Max", "Min", "Pow"])
@pytest.mark.parametrize(
    "shape", ["1,4,6,8", "1,4,1,1", "1,1,6,1", "1,1,1,8", "1,1,6,8", "1,8", "1,6,8"]
)
def test_binary_of_two_computed_operands_broadcasts(op: str, shape: str, tmp_path: Path) -> None:
    for body in (f"y = {op}(x, g)", f"y = {op}(g, x)"):
        model = stage_of(body, f"{IMAGE}, float[{shape}] g", "y")
        assert_float_parity(tmp_path, model, random_inputs(model, low=0.5, high=2.0))


def test_both_operands_broadcast(tmp_path: Path) -> None:
    model = stage_of("y = Mul(a, b)", "float[1,4,1,8] a, float[1,1,6,8] b", "y")
    assert_float_parity(tmp_path, model)


@pytest.mark.parametrize(("exponent", "base"), [(3.0, False), (0.3, False), (2.5, True)])
def test_pow(exponent: float, base: bool, tmp_path: Path) -> None:
    body = "a = Abs(x) y = Pow(e, a)" if base else "a = Abs(x) y = Pow(a, e)"
    assert_float_parity(tmp_path, stage_of(body, IMAGE, "y", {"e": np.float32(exponent)}))


@FEW
@given(
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pads=st.tuples(*[st.integers(0, 1)] * 4),
    kind=st.sampled_from(["MaxPool", "AveragePool"]),
    counted=st.booleans(),
)
def test_pools(
    tmp_path: Path,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    pads: tuple[int, ...],
    kind: str,
    counted: bool,
) -> None:
    own = tuple(min(p, kernel[i % 2] - 1) for i, p in enumerate(pads))
    more = f", count_include_pad={int(counted)}" if kind == "AveragePool" else ""
    attributes = f"kernel_shape={list(kernel)}, strides={list(strides)}, pads={list(own)}{more}"
    model = stage_of(f"y = {kind}<{attributes}>(x)", "float[1,5,7,9] x", "y")
    assert assert_float_parity(tmp_path, model).types == {"Pooling": 1}


@pytest.mark.parametrize("op", ["ReduceMean", "ReduceMax", "ReduceSum"])
@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize("axes", [(2, 3), (1,), (3,), (1, 2), (2,)])
def test_reductions(op: str, keep: int, axes: tuple[int, ...], tmp_path: Path) -> None:
    model = stage_of(f"y = {op}<keepdims={keep}>(x, a)", IMAGE, "y", {"a": ints(*axes)})
    written = assert_float_parity(tmp_path, model)
    whole_map = axes == (2, 3) and op != "ReduceSum"
    assert written.types == {"Pooling" if whole_map else "Reduction": 1}


def test_gemm(tmp_path: Path) -> None:
    constants = {"W": normal(5, 12), "b": normal(5, seed=1)}
    model = stage_of("y = Gemm<transB=1>(x, W, b)", "float[1,12] x", "y", constants)
    assert assert_float_parity(tmp_path, model).types == {"InnerProduct": 1}


@pytest.mark.parametrize(
    ("left", "right"), [("1,5,6", "1,6,7"), ("1,3,5,6", "1,3,6,7"), ("1,3,5,6", "1,1,6,7")]
)
def test_matmul_of_computed_operands(left: str, right: str, tmp_path: Path) -> None:
    model = stage_of("y = MatMul(a, b)", f"float[{left}] a, float[{right}] b", "y")
    assert assert_float_parity(tmp_path, model).types["MatMul"] == 1


@pytest.mark.parametrize("constant", [(6, 7), (1, 6, 7)])
def test_matmul_with_a_constant(constant: tuple[int, ...], tmp_path: Path) -> None:
    model = stage_of("y = MatMul(a, c)", "float[1,5,6] a", "y", {"c": normal(*constant)})
    written = assert_float_parity(tmp_path, model)
    assert written.types["InnerProduct"] == (len(constant) == 2)


@pytest.mark.parametrize("then", ["", "z = Relu(y)"])
@pytest.mark.parametrize("shape", ["1,3,5,6", "1,2,3,5,6"])
def test_linear_layer_on_maps_of_channels_last(shape: str, then: str, tmp_path: Path) -> None:
    body = f"y = MatMul(a, c) {then}"
    output = "z" if then else "y"
    model = stage_of(body, f"float[{shape}] a", output, {"c": normal(6, 7)})
    types = assert_float_parity(tmp_path, model).types
    assert types["InnerProduct"] == 1
    assert types["Reshape"] == 2


@pytest.mark.parametrize(
    "target", [(1, 192), (1, 8, 24), (1, 2, 2, 48), (1, 2, 3, 4, 8), (1, 4, 48), (1, 1, 1, 192)]
)
def test_reshape(target: tuple[int, ...], tmp_path: Path) -> None:
    model = stage_of("y = Reshape(x, s)", IMAGE, "y", {"s": ints(*target)})
    assert_float_parity(tmp_path, model)


@FEW
@given(rank=st.integers(3, 5), data=st.data())
def test_transpose(tmp_path: Path, rank: int, data: st.DataObject) -> None:
    shape = (1, 3, 4, 5, 6)[:rank]
    perm = [0, *data.draw(st.permutations(range(1, rank)))]
    sizes = ",".join(map(str, shape))
    model = stage_of(f"y = Transpose<perm={perm}>(x)", f"float[{sizes}] x", "y")
    assert assert_float_parity(tmp_path, model).types == {"Permute": 1}


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_concat_and_split(axis: int, tmp_path: Path) -> None:
    length = (1, 4, 6, 8)[axis]
    sizes = ints(1, length - 1)
    model = stage_of(
        f"a, b = Split<axis={axis}>(x, s) r = Relu(a) y = Concat<axis={axis}>(b, r, b)",
        IMAGE,
        "y",
        {"s": sizes},
    )
    written = assert_float_parity(tmp_path, model)
    assert written.types == {"Slice": 1, "ReLU": 1, "Concat": 1, "Split": 1}


@FEW
@given(
    start=st.tuples(*[st.integers(0, 2)] * 3),
    cut=st.tuples(*[st.integers(0, 1)] * 3),
    steps=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_slice(
    tmp_path: Path, start: tuple[int, ...], cut: tuple[int, ...], steps: tuple[int, int]
) -> None:
    shape = (4, 6, 8)
    constants = {
        "s": ints(*start),
        "e": ints(*(n - c for n, c in zip(shape, cut, strict=True))),
        "a": ints(1, 2, 3),
        "t": ints(1, *steps),
    }
    assert_float_parity(tmp_path, stage_of("y = Slice(x, s, e, a, t)", IMAGE, "y", constants))


@pytest.mark.parametrize(
    ("mode", "pads", "shape"),
    [
        ("constant", (0, 0, 1, 2, 0, 0, 3, 0), "1,4,6,8"),
        ("constant", (0, 1, 0, 2, 0, 2, 1, 0), "1,4,6,8"),
        ("edge", (0, 0, 1, 2, 0, 0, 3, 0), "1,4,6,8"),
        ("reflect", (0, 0, 1, 2, 0, 0, 3, 0), "1,4,6,8"),
        ("constant", (0, 1, 2, 0, 0, 3), "1,6,8"),
    ],
)
@pytest.mark.parametrize("value", [0.0, 1.5])
def test_pad(mode: str, pads: tuple[int, ...], shape: str, value: float, tmp_path: Path) -> None:
    constants = {"p": ints(*pads), "v": np.float32(value)}
    operands = "x, p, v" if mode == "constant" else "x, p"
    model = stage_of(f'y = Pad<mode="{mode}">({operands})', f"float[{shape}] x", "y", constants)
    assert assert_float_parity(tmp_path, model).types == {"Padding": 1}


RESIZES = [
    ("nearest", "asymmetric", "floor", (12, 16)),
    ("nearest", "half_pixel", "round_prefer_floor", (12, 16)),
    ("nearest", "asymmetric", "floor", (3, 4)),
    ("nearest", "asymmetric", "floor", (9, 11)),
    ("linear", "half_pixel", "", (12, 16)),
    ("linear", "half_pixel", "", (3, 5)),
    ("linear", "align_corners", "", (13, 9)),
]


@pytest.mark.parametrize(("mode", "rule", "nearest", "size"), RESIZES)
def test_resize(mode: str, rule: str, nearest: str, size: tuple[int, int], tmp_path: Path) -> None:
    more = f', nearest_mode="{nearest}"' if nearest else ""
    body = f'y = Resize<mode="{mode}", coordinate_transformation_mode="{rule}"{more}>(x, , , s)'
    model = stage_of(body, IMAGE, "y", {"s": ints(1, 4, *size)})
    assert assert_float_parity(tmp_path, model).types == {"Interp": 1}


@pytest.mark.parametrize(
    ("indices", "axis"),
    [(ints(2, 0, 1, 3), 1), (ints(1, 2), 2), (ints(7), 3), (np.asarray(2, np.int64), 1)],
)
def test_gather(indices: np.ndarray, axis: int, tmp_path: Path) -> None:
    model = stage_of(f"y = Gather<axis={axis}>(x, i)", IMAGE, "y", {"i": indices})
    assert_float_parity(tmp_path, model)


@pytest.mark.parametrize("source", ["1,4,1,1", "1,1,6,1", "1,8", "1,4,6,1"])
def test_expand(source: str, tmp_path: Path) -> None:
    model = stage_of("y = Expand(x, s)", f"float[{source}] x", "y", {"s": ints(1, 4, 6, 8)})
    assert assert_float_parity(tmp_path, model).types["Tile"] == 1


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_channel_shuffle(groups: int, tmp_path: Path) -> None:
    model = stage_of(f"y = deploykit.ChannelShuffle<groups={groups}>(x)", "float[1,6,5,4] x", "y")
    assert assert_float_parity(tmp_path, model).types == {"ShuffleChannel": 1}


@pytest.mark.parametrize("channels", [(3, 3), (2, 4)])
def test_concat_shuffle_split(channels: tuple[int, int], tmp_path: Path) -> None:
    a, b = channels
    model = stage_of(
        "y, z = deploykit.ConcatShuffleSplit<groups=2>(a, b)",
        f"float[1,{a},5,4] a, float[1,{b},5,4] b",
        "y, z",
    )
    written = assert_float_parity(tmp_path, model)
    assert written.types == {"Concat": 1, "ShuffleChannel": 1, "Slice": 1}


REFUSED = {
    "y = Transpose<perm=[1,0,2,3]>(x)": "moves the batch axis",
    "y = Reshape(x, flat)": "the first axis must have length 1",
    "y = ReduceMean(x, zero)": "along the batch axis",
    "y = Slice(x, s, e, a, t)": "every n-th row and column",
    "y = Gather<axis=0>(x, zero)": "along the batch axis",
    'y = Pad<mode="wrap">(x, p)': "padding by mode 'wrap'",
    'y = Pad<mode="edge">(x, q)': "padding of channels",
    'y = Resize<mode="nearest", coordinate_transformation_mode="half_pixel",'
    ' nearest_mode="round_prefer_floor">(x, , , up)': "does not sample these points",
    "y = Concat<axis=0>(x, x)": "along the batch axis",
}
CONSTANTS = {
    "flat": ints(4, 48),
    "zero": ints(0),
    "s": ints(0),
    "e": ints(4),
    "a": ints(1),
    "t": ints(2),
    "p": ints(0, 0, 1, 1, 0, 0, 1, 1),
    "q": ints(0, 1, 1, 1, 0, 0, 1, 1),
    "up": ints(1, 4, 9, 11),
}


@pytest.mark.parametrize("body", REFUSED)
def test_what_ncnn_lacks_is_refused_with_a_reason(body: str, tmp_path: Path) -> None:
    used = {k: v for k, v in CONSTANTS.items() if f" {k}" in body}
    model = stage_of(body, IMAGE, "y", used)
    with pytest.raises(UnsupportedOpsError) as caught:
        write(tmp_path, model)
    assert REFUSED[body] in str(caught.value)


def test_all_refusals_come_at_once(tmp_path: Path) -> None:
    body = "a = Transpose<perm=[1,0,2,3]>(x) b = Relu(a) y = ReduceMean(b, zero)"
    with pytest.raises(UnsupportedOpsError) as caught:
        write(tmp_path, stage_of(body, IMAGE, "y", {"zero": ints(0)}))
    assert caught.value.ops[0].op_type == "Transpose"
    assert len(caught.value.ops) >= 2


def test_a_batch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="export the model with batch 1"):
        write(tmp_path, stage_of("y = Relu(x)", "float[2,4,6,8] x", "y"))


def test_an_op_that_is_not_canonical_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOpsError, match="Mish"):
        write(tmp_path, stage_of("y = Mish(x)", IMAGE, "y"))
