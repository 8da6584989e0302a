"""Every op of the canonical set: lowered, saved, executed, compared with ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploykit.errors import UnsupportedOpsError
from deploykit.graph.ops import CANONICAL_OPS, QDQ_OPS
from deploykit_coreml.lower_graph import lowering_table
from deploykit_testing.coreml import (
    assert_float_parity,
    assert_int8_parity,
    normal,
    random_inputs,
    stage_of,
    write,
)

IMAGE = "float[1,4,6,8] x"


def ints(*values: int) -> np.ndarray:
    return np.asarray(values, np.int64)


def test_every_canonical_op_has_a_lowering_or_a_reason() -> None:
    table = lowering_table()
    known = table.ops | set(table.refused)
    assert {(op.domain, op.op_type) for op in CANONICAL_OPS} <= known
    assert {("", op) for op in QDQ_OPS} <= known


UNARY = {
    "y = Relu(x)": "relu",
    "y = Sigmoid(x)": "sigmoid",
    "y = Tanh(x)": "tanh",
    "y = Exp(x)": "exp",
    "y = Abs(x)": "abs",
    "y = Neg(x)": "mul",
    "a = Abs(x) y = Sqrt(a)": "sqrt",
    "y = LeakyRelu<alpha=0.1>(x)": "leaky_relu",
    "y = Elu<alpha=0.7>(x)": "elu",
    "y = HardSigmoid<alpha=0.3, beta=0.4>(x)": "sigmoid_hard",
    "y = HardSwish(x)": "thresholded_relu",
    'y = Gelu<approximate="none">(x)': "gelu",
    'y = Gelu<approximate="tanh">(x)': "gelu",
    "y = Softmax<axis=1>(x)": "softmax",
    "y = Softmax<axis=3>(x)": "softmax",
    "y = deploykit.Silu(x)": "silu",
}


@pytest.mark.parametrize("body", UNARY)
def test_unary(body: str, tmp_path: Path) -> None:
    model = stage_of(body, IMAGE, "y")
    inputs = random_inputs(model, low=-8, high=8)
    inputs["x"].reshape(-1)[:4] = (-3.0, 3.0, 0.0, -8.0)
    written = assert_float_parity(tmp_path, model, inputs)
    assert UNARY[body] in written.ops


@pytest.mark.parametrize(
    ("low", "high", "op"),
    [(0.0, 6.0, "relu6"), (-1.0, 1.0, "clip"), (0.5, None, "maximum"), (None, 0.5, "minimum")],
)
def test_clip(low: float | None, high: float | None, op: str, tmp_path: Path) -> None:
    bounds = {k: np.float32(v) for k, v in (("lo", low), ("hi", high)) if v is not None}
    operands = ", ".join(k if k in bounds else "" for k in ("lo", "hi")).rstrip(", ")
    model = stage_of(f"y = Clip(x, {operands})", IMAGE, "y", bounds)
    assert assert_float_parity(tmp_path, model).ops[op] == 1


@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 1, 1), (1, 1, 8)])
def test_prelu(shape: tuple[int, ...], tmp_path: Path) -> None:
    model = stage_of("y = PRelu(x, s)", IMAGE, "y", {"s": normal(*shape)})
    written = assert_float_parity(tmp_path, model)
    assert ("prelu" in written.ops) == (shape[-1] == 1)


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Max", "Min"])
@pytest.mark.parametrize("shape", [(), (4, 1, 1), (1, 4, 6, 8)])
def test_binary_with_a_constant(op: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    constant = np.abs(normal(*shape)) + np.float32(0.5)
    model = stage_of(f"y = {op}(x, c)", IMAGE, "y", {"c": np.asarray(constant, np.float32)})
    assert_float_parity(tmp_path, model)


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Max", "Min"])
def test_binary_broadcasts(op: str, tmp_path: Path) -> None:
    model = stage_of(f"y = {op}(x, g)", f"{IMAGE}, float[1,4,1,1] g", "y")
    assert_float_parity(tmp_path, model)


@pytest.mark.parametrize(("exponent", "op"), [(3.0, "pow"), (0.5, "sqrt")])
def test_pow(exponent: float, op: str, tmp_path: Path) -> None:
    model = stage_of("a = Abs(x) y = Pow(a, e)", IMAGE, "y", {"e": np.float32(exponent)})
    assert op in assert_float_parity(tmp_path, model).ops


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    groups=st.sampled_from([1, 2, 4]),
    multiplier=st.integers(1, 2),
    bias=st.booleans(),
)
def test_convolutions(
    tmp_path: Path,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    pads: tuple[int, ...],
    dilations: tuple[int, int],
    groups: int,
    multiplier: int,
    bias: bool,
) -> None:
    outputs = 4 * multiplier
    constants = {"W": normal(outputs, 4 // groups, *kernel)}
    if bias:
        constants["B"] = normal(outputs, seed=1)
    body = (
        f"y = Conv<kernel_shape={list(kernel)}, strides={list(strides)}, pads={list(pads)},"
        f" dilations={list(dilations)}, group={groups}>(x, W{', B' if bias else ''})"
    )
    assert_float_parity(tmp_path, stage_of(body, IMAGE, "y", constants))


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("extra", [[0, 0], [1, 0], [1, 1]])
@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 0, 1, 1]])
def test_transposed_convolutions(
    groups: int, extra: list[int], pads: list[int], tmp_path: Path
) -> None:
    body = (
        f"y = ConvTranspose<kernel_shape=[3,3], strides=[2,2], pads={pads}, dilations=[1,1],"
        f" output_padding={extra}, group={groups}>(x, W, B)"
    )
    constants = {"W": normal(4, 8 // groups, 3, 3), "B": normal(8)}
    assert_float_parity(tmp_path, stage_of(body, IMAGE, "y", constants))


@pytest.mark.parametrize("bias", [True, False])
def test_gemm(bias: bool, tmp_path: Path) -> None:
    constants = {"W": normal(5, 7)} | ({"B": normal(5)} if bias else {})
    body = f"y = Gemm<transB=1>(x, W{', B' if bias else ''})"
    written = assert_float_parity(tmp_path, stage_of(body, "float[2,7] x", "y", constants))
    assert written.ops["linear"] == 1


@pytest.mark.parametrize(
    ("inputs", "constants", "op"),
    [
        ("float[1,3,7] x", {"b": normal(7, 5)}, "linear"),
        ("float[1,2,3,7] x", {"b": normal(7, 5)}, "matmul"),
        ("float[1,2,3,7] x, float[1,2,7,5] b", {}, "matmul"),
    ],
)
def test_matmul(inputs: str, constants: dict[str, np.ndarray], op: str, tmp_path: Path) -> None:
    model = stage_of("y = MatMul(x, b)", inputs, "y", constants)
    assert assert_float_parity(tmp_path, model).ops[op] == 1


POOLS = [
    "MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>",
    "MaxPool<kernel_shape=[2,3], strides=[1,2], pads=[0,1,0,0]>",
    "AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1], count_include_pad=0>",
    "AveragePool<kernel_shape=[3,3], strides=[2,1], pads=[1,0,1,1], count_include_pad=1>",
    "AveragePool<kernel_shape=[2,2], strides=[2,2], pads=[0,0,0,0], count_include_pad=0>",
]


@pytest.mark.parametrize("pool", POOLS)
def test_pools(pool: str, tmp_path: Path) -> None:
    assert_float_parity(tmp_path, stage_of(f"y = {pool}(x)", IMAGE, "y"))


@pytest.mark.parametrize("op", ["ReduceMean", "ReduceMax", "ReduceSum"])
@pytest.mark.parametrize(("axes", "keeps"), [((2, 3), 1), ((2, 3), 0), ((1,), 1), ((3,), 0)])
def test_reductions(op: str, axes: tuple[int, ...], keeps: int, tmp_path: Path) -> None:
    body = f"y = {op}<keepdims={keeps}>(x, axes)"
    assert_float_parity(tmp_path, stage_of(body, IMAGE, "y", {"axes": ints(*axes)}))


SHAPE_OPS = {
    "y = Reshape(x, s)": {"s": ints(1, 4, 48)},
    "y = Transpose<perm=[0,2,3,1]>(x)": {},
    "r = Relu(x) y = Concat<axis=1>(x, r, x)": {},
    "y = Concat<axis=2>(x, c)": {"c": normal(1, 4, 2, 8)},
    "a, b = Split<axis=1>(x, s) y = Concat<axis=3>(b, a)": {"s": ints(2, 2)},
    "a, b = Split<axis=3>(x, s) r = Relu(b) y = Concat<axis=3>(r, a)": {"s": ints(3, 5)},
    "y = Slice(x, s, e, a, t)": {
        "s": ints(1, 0),
        "e": ints(3, 7),
        "a": ints(1, 3),
        "t": ints(1, 2),
    },
    "y = Pad(x, p, v)": {"p": ints(0, 1, 1, 0, 0, 2, 0, 3), "v": np.float32(0.5)},
    "y = Pad(x, p)": {"p": ints(0, 0, 1, 0, 0, 0, 0, 3)},
    'y = Pad<mode="reflect">(x, p)': {"p": ints(0, 0, 1, 2, 0, 0, 2, 1)},
    'y = Pad<mode="edge">(x, p)': {"p": ints(0, 0, 1, 2, 0, 0, 2, 1)},
    "y = Gather<axis=1>(x, i)": {"i": ints(2, 0, 3)},
    "y = Gather<axis=2>(x, i)": {"i": ints(1, 2, 3)},
    "y = Gather<axis=1>(x, i)  ": {"i": np.asarray(2, np.int64)},
    "y = Gather<axis=3>(x, i)": {"i": ints(5, 1, 1, 0).reshape(2, 2)},
    "m = ReduceMean<keepdims=1>(x, a) y = Expand(m, s)": {"a": ints(2, 3), "s": ints(1, 4, 3, 5)},
    "m = ReduceMean<keepdims=0>(x, a) y = Expand(m, s)": {"a": ints(0, 1), "s": ints(2, 6, 8)},
}


@pytest.mark.parametrize("body", SHAPE_OPS)
def test_shape_ops(body: str, tmp_path: Path) -> None:
    assert_float_parity(tmp_path, stage_of(body, IMAGE, "y", SHAPE_OPS[body]))


RESIZES = [
    ("nearest", "asymmetric", "floor", (12, 16), "upsample_nearest_neighbor"),
    ("nearest", "half_pixel", "round_prefer_floor", (12, 24), "upsample_nearest_neighbor"),
    ("nearest", "asymmetric", "floor", (9, 5), "gather"),
    ("nearest", "align_corners", "ceil", (11, 12), "gather"),
    ("linear", "half_pixel", "", (12, 16), "resize_bilinear"),
    ("linear", "half_pixel", "", (5, 13), "resize_bilinear"),
    ("linear", "align_corners", "", (11, 16), "resize_bilinear"),
    ("linear", "asymmetric", "", (9, 16), "resize_bilinear"),
    ("linear", "pytorch_half_pixel", "", (1, 13), "matmul"),
]


@pytest.mark.parametrize(("mode", "rule", "rounding", "size", "op"), RESIZES)
def test_resizes(
    mode: str, rule: str, rounding: str, size: tuple[int, int], op: str, tmp_path: Path
) -> None:
    extra = f', nearest_mode="{rounding}"' if rounding else ""
    body = f'y = Resize<mode="{mode}", coordinate_transformation_mode="{rule}"{extra}>(x, , , s)'
    model = stage_of(body, IMAGE, "y", {"s": ints(1, 4, *size)})
    assert op in assert_float_parity(tmp_path, model).ops


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_shuffle_is_split_and_interleave(groups: int, tmp_path: Path) -> None:
    model = stage_of(f"y = deploykit.ChannelShuffle<groups={groups}>(x)", IMAGE, "y")
    written = assert_float_parity(tmp_path, model)
    assert written.interleaved == 1
    assert not {"transpose", "reshape"} & set(written.ops)


def test_shuffle_of_a_concat_interleaves_its_operands(tmp_path: Path) -> None:
    model = stage_of(
        "r = Relu(x) c = Concat<axis=1>(x, r) y = deploykit.ChannelShuffle<groups=2>(c)",
        IMAGE,
        "y",
    )
    written = assert_float_parity(tmp_path, model)
    assert written.ops == {"relu": 1, "concat": 1}
    assert written.interleaved == 1


def test_shuffle_of_a_concat_that_others_read_keeps_it(tmp_path: Path) -> None:
    model = stage_of(
        "r = Relu(x) c = Concat<axis=1>(x, r) y = deploykit.ChannelShuffle<groups=2>(c)"
        " z = Relu(c)",
        IMAGE,
        "y, z",
    )
    written = assert_float_parity(tmp_path, model)
    assert written.ops["concat"] == 2
    assert written.interleaved == 1


@pytest.mark.parametrize("groups", [2, 4])
def test_concat_shuffle_split(groups: int, tmp_path: Path) -> None:
    body = f"r = Relu(x) y, z = deploykit.ConcatShuffleSplit<groups={groups}>(x, r)"
    written = assert_float_parity(tmp_path, stage_of(body, IMAGE, "y, z"))
    assert written.interleaved == 1
    assert (written.ops["concat"], written.ops["split"]) == ((1, 1) if groups == 2 else (2, 2))


INT8 = [
    ("c = Conv<kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]>(x, W, B) y = Relu(c)", "y"),
    ("y = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=4>(x, D, B)", "y"),
    ("r = Relu(x) y = Add(x, r)", "y"),
    ("r = Relu(x) y = Concat<axis=1>(x, r)", "y"),
    ("y = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(x)", "y"),
    ("y = AveragePool<kernel_shape=[2,2], strides=[2,2]>(x)", "y"),
    ("y = ReduceMean<keepdims=0>(x, axes)", "y"),
    ("r = Relu(x) y, z = deploykit.ConcatShuffleSplit<groups=2>(x, r)", "y, z"),
    ("f = Reshape(x, flat) y = Gemm<transB=1>(f, G, B)", "y"),
    ("y = deploykit.ChannelShuffle<groups=2>(x)", "y"),
]


@pytest.mark.parametrize(("body", "outputs"), INT8)
def test_int8(body: str, outputs: str, tmp_path: Path) -> None:
    everything = {
        "W": normal(4, 4, 3, 3),
        "D": normal(4, 1, 3, 3),
        "B": normal(4),
        "G": normal(4, 192),
        "axes": ints(2, 3),
        "flat": ints(1, 192),
    }
    words = body.replace("(", " ").replace(")", " ").replace(",", " ").split()
    constants = {k: v for k, v in everything.items() if k in words}
    written = assert_int8_parity(tmp_path, stage_of(body, IMAGE, outputs, constants))
    assert written.ops["quantize"] == written.ops["dequantize"] >= 2


def test_int8_shuffles_keep_no_pair_between_moves(tmp_path: Path) -> None:
    """The branch that only passes through is moved, not rounded again."""
    body = (
        "r = Relu(x) a, b = deploykit.ConcatShuffleSplit<groups=2>(x, r) s = Relu(b)"
        " y, z = deploykit.ConcatShuffleSplit<groups=2>(a, s)"
    )
    written = assert_int8_parity(tmp_path, stage_of(body, IMAGE, "y, z"))
    # x, r, b, s, y, z; a is read by moves alone
    assert written.ops["quantize"] == 6
    assert written.interleaved == 2


def test_all_that_cannot_be_lowered_is_reported_at_once(tmp_path: Path) -> None:
    model = stage_of("a = Sin(x) b = Relu(a) y = Cos(b)", IMAGE, "y")
    with pytest.raises(UnsupportedOpsError) as caught:
        write(tmp_path, model)
    assert [op.op_type for op in caught.value.ops] == ["Sin", "Cos"]


def test_forms_without_a_lowering_are_reported_at_once(tmp_path: Path) -> None:
    model = stage_of(
        'p = Pad<mode="wrap">(x, pads) q = Resize<mode="cubic">(p, , , s) y = Relu(q)',
        IMAGE,
        "y",
        {"pads": ints(0, 0, 1, 1, 0, 0, 1, 1), "s": ints(1, 4, 9, 9)},
    )
    with pytest.raises(UnsupportedOpsError) as caught:
        write(tmp_path, model)
    assert [op.op_type for op in caught.value.ops] == ["Pad", "Resize"]


def test_six_axes_are_refused(tmp_path: Path) -> None:
    model = stage_of("y = Reshape(x, s)", IMAGE, "y", {"s": ints(1, 2, 2, 3, 2, 8)})
    with pytest.raises(UnsupportedOpsError, match="6 axes"):
        write(tmp_path, model)
