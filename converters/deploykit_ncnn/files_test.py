"""The two files: their text and bytes, names and splits, reading back, and damage."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploykit.errors import DataError, SourceError
from deploykit.model import Precision
from deploykit_ncnn import TARGET
from deploykit_ncnn.layer_graph import Layer, Weight, split_shared_blobs, unique_name
from deploykit_ncnn.read_files import read_param, read_storage
from deploykit_ncnn.write_files import write_bin, write_param
from deploykit_testing.ncnn import (
    Written,
    assert_float_parity,
    normal,
    quantized,
    random_inputs,
    stage_of,
    write,
)

BODY = (
    "c = Conv<kernel_shape=[3,3], strides=[2,2], pads=[0,1,1,1]>(x, W, b) r = Clip(c, zero, six) "
    "d = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=4>(r, D) a = Add(d, r) "
    "m = ReduceMean<keepdims=1>(a, hw) f = Reshape(m, flat) y = Gemm<transB=1>(f, V, v)"
)
CONSTANTS = {
    "W": normal(4, 3, 3, 3),
    "b": normal(4, seed=1),
    "D": normal(4, 1, 3, 3, seed=2),
    "V": normal(5, 4, seed=3),
    "v": normal(5, seed=4),
    "zero": np.float32(0),
    "six": np.float32(6),
    "hw": np.asarray([2, 3], np.int64),
    "flat": np.asarray([1, 4], np.int64),
}

GOLDEN = """\
7767517
7 8
Input                x       0 1 in0 0=9 1=8 2=3
Convolution          r       1 1 in0 r 0=4 1=3 3=2 4=1 5=1 6=108 9=3 -23310=2,0.0,6.0 14=0 16=1
Split                r_split 1 2 r r_copy0 r_copy1
ConvolutionDepthWise d       1 1 r_copy0 d 0=4 1=3 4=1 6=36 7=4
BinaryOp             a       2 1 d r_copy1 a
Pooling              m       1 1 a m 0=1 4=1
InnerProduct         y       1 1 m out0 0=5 1=1 2=20
"""


def small(tmp_path: Path, precision: Precision = Precision.FP32) -> Written:
    return write(tmp_path, stage_of(BODY, "float[1,3,8,9] x", "y", CONSTANTS), precision)


def test_golden_text(tmp_path: Path) -> None:
    assert small(tmp_path).path.read_text() == GOLDEN


def test_bin_bytes(tmp_path: Path) -> None:
    data = small(tmp_path).artifact.companions[".bin"]
    expected = b"\0\0\0\0" + CONSTANTS["W"].tobytes() + CONSTANTS["b"].tobytes()
    expected += b"\0\0\0\0" + CONSTANTS["D"].tobytes()
    expected += b"\0\0\0\0" + CONSTANTS["V"].tobytes() + CONSTANTS["v"].tobytes()
    assert data == expected
    half = small(tmp_path, Precision.FP16).artifact.companions[".bin"]
    tag = struct.pack("<I", 0x01306B47)
    assert half.startswith(tag + CONSTANTS["W"].astype("<f2").tobytes() + CONSTANTS["b"].tobytes())


def test_an_array_of_halves_is_filled_up_to_four_bytes() -> None:
    layer = Layer("InnerProduct", "l", ("a",), ("b",), {}, (Weight(normal(3), tagged=True),))
    assert len(write_bin([layer], half=True)) == 4 + 8
    assert len(write_bin([layer], half=False)) == 4 + 12


def test_a_weight_that_float16_cannot_hold_stays_float32(tmp_path: Path) -> None:
    weights = normal(4, 3, 1, 1) * np.float32(1e5)
    model = stage_of("y = Conv<kernel_shape=[1,1]>(x, W)", "float[1,3,4,4] x", "y", {"W": weights})
    written = write(tmp_path, model, Precision.FP16)
    assert written.artifact.companions[".bin"] == b"\0\0\0\0" + weights.tobytes()
    assert_float_parity(tmp_path, model)


def test_two_writes_are_byte_identical(tmp_path: Path) -> None:
    assert small(tmp_path).artifact.files("m") == small(tmp_path).artifact.files("m")


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(number=FLOATS)
def test_ncnn_reads_the_very_floats_that_are_written(tmp_path: Path, number: float) -> None:
    import ncnn

    layers = [
        Layer("Input", "i", (), ("in0",), {0: 4}),
        Layer("BinaryOp", "b", ("in0",), ("out0",), {0: 0, 1: 1, 2: number}),
    ]
    (tmp_path / "f.param").write_bytes(write_param(layers))
    (tmp_path / "f.bin").write_bytes(b"")
    net = ncnn.Net()
    assert net.load_param(str(tmp_path / "f.param")) == 0
    assert net.load_model(str(tmp_path / "f.bin")) == 0
    extractor = net.create_extractor()
    extractor.input("in0", ncnn.Mat(np.zeros(4, np.float32)).clone())
    assert np.array(extractor.extract("out0")[1])[0] == np.float32(number)
    assert read_param(tmp_path / "f.param")[1].params[2] == pytest.approx(number, rel=1e-6)


def test_a_parameter_that_is_no_number_is_refused() -> None:
    with pytest.raises(DataError, match="finite"):
        write_param([Layer("BinaryOp", "b", (), ("o",), {2: float("nan")})])


# -- names and splits


def test_names_are_as_ncnn_reads_them() -> None:
    taken: set[str] = set()
    assert unique_name("a b\tc", taken) == "a_b_c"
    assert unique_name("a b c", taken) == "a_b_c_1"
    assert len(unique_name("x" * 400, taken)) == 240
    assert len(unique_name("x" * 400, taken).encode()) <= 255
    assert unique_name("", taken) == "unnamed"


def test_long_names_and_names_with_spaces_load(tmp_path: Path) -> None:
    names = {"one": "a long name " * 40, "two": "a long name " * 40 + "!"}
    model = stage_of("one = Relu(x) two = Abs(one) y = Add(one, two)", "float[1,3,4,4] x", "y")
    for node in model.graph.graph:
        for value in node.outputs:
            value.name = names.get(value.name or "", value.name)
    assert_float_parity(tmp_path, model)


def test_a_value_called_like_a_copy_is_no_trouble(tmp_path: Path) -> None:
    body = "r = Relu(x) r_copy0 = Abs(r) r_copy1 = Neg(r) in0 = Add(r_copy0, r_copy1) y = Exp(in0)"
    assert_float_parity(tmp_path, stage_of(body, "float[1,3,4,4] x", "y"))


def test_inputs_and_outputs_are_numbered(tmp_path: Path) -> None:
    body = "out0 = Relu(b) p = Abs(a)"
    model = stage_of(body, "float[1,3,4,4] a, float[1,5] b", "p, out0")
    written = assert_float_parity(tmp_path, model)
    assert [(s.name, s.runtime_name) for s in written.artifact.inputs] == [
        ("a", "in0"),
        ("b", "in1"),
    ]
    assert [(s.name, s.runtime_name) for s in written.artifact.outputs] == [
        ("p", "out0"),
        ("out0", "out1"),
    ]
    assert written.artifact.inputs[0].layout == "CHW"
    assert written.artifact.inputs[0].shape == (3, 4, 4)


def test_an_output_that_is_read_too_and_an_input_read_twice(tmp_path: Path) -> None:
    body = "r = Relu(x) y = Mul(r, r) z = Add(x, y)"
    written = assert_float_parity(tmp_path, stage_of(body, "float[1,3,4,4] x", "r, y, z"))
    assert written.types["Split"] == 3


def test_split_makes_a_blob_for_each_reader_and_end() -> None:
    layers = [
        Layer("Input", "i", (), ("in0",)),
        Layer("ReLU", "r", ("in0",), ("r",)),
        Layer("BinaryOp", "b", ("r", "r"), ("b",)),
    ]
    made = split_shared_blobs(layers, {"out0": "b", "out1": "r", "out2": "in0"})
    assert [(x.type, x.inputs, x.outputs) for x in made] == [
        ("Input", (), ("in0",)),
        ("Split", ("in0",), ("in0_copy0", "out2")),
        ("ReLU", ("in0_copy0",), ("r",)),
        ("Split", ("r",), ("r_copy0", "r_copy1", "out1")),
        ("BinaryOp", ("r_copy0", "r_copy1"), ("out0",)),
    ]


# -- reading back


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    written = small(tmp_path, Precision.FP16)
    layers = written.layers
    storage = read_storage(written.path.with_suffix(".bin"), layers)
    assert {name: s.dtype for name, s in storage.items()} == dict.fromkeys("rdy", "float16")
    assert sum(s.bytes for s in storage.values()) == len(written.artifact.companions[".bin"])
    again = write_param(layers)
    assert again == written.path.read_bytes()


DAMAGES = {
    "no magic": (lambda t: t.replace("7767517", "7767518"), "no ncnn .param file"),
    "a line less": (lambda t: "\n".join(t.splitlines()[:-1]), "are announced"),
    "a count that is none": (lambda t: t.replace("\n7 8\n", "\n7 x\n"), "second line"),
    "half a line": (lambda t: t[: t.rindex("1 1 m")], "is damaged"),
    "an unknown blob": (lambda t: t.replace("1 1 a m", "1 1 q m"), "reads 'q'"),
    "one blob twice": (lambda t: t.replace("r_copy0 r_copy1", "r_copy1 r_copy1"), "is damaged"),
    "a parameter that is none": (lambda t: t.replace("6=108", "6=10x8"), "is damaged"),
    "an array that is short": (lambda t: t.replace("=2,0.0,6.0", "=3,0.0,6.0"), "announced"),
    "empty": (lambda t: "", "no ncnn .param file"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_param_file_is_refused(damage: str, tmp_path: Path) -> None:
    path = small(tmp_path).path
    change, words = DAMAGES[damage]
    path.write_text(change(path.read_text()))
    with pytest.raises(SourceError, match=words):
        TARGET.inspect(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda b: b[:-3], "bytes are there, and layer 'y' needs"),
        (lambda b: b[:2], "needs"),
        (lambda b: b + b"\0\0\0\0", "the layers need"),
        (lambda b: b"\1\2\3\4" + b[4:], "have the tag 0x4030201"),
    ],
)
def test_a_damaged_bin_file_is_refused(change, words: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = small(tmp_path).path
    weights = path.with_suffix(".bin")
    weights.write_bytes(change(weights.read_bytes()))
    with pytest.raises(SourceError, match=words):
        TARGET.inspect(path)


def test_a_layer_of_another_converter_is_listed_and_its_weights_are_not(tmp_path: Path) -> None:
    path = small(tmp_path).path
    path.write_text(path.read_text().replace("BinaryOp            ", "LayerNorm           "))
    text = TARGET.inspect(path)
    assert "weights: 2 float32" in text
    assert "weights from 'a' on are not read: LayerNorm is not known here" in text


def test_scales_are_read_back(tmp_path: Path) -> None:
    body = "r = Conv<kernel_shape=[1,1]>(x, W) y = Conv<kernel_shape=[1,1]>(r, V)"
    constants = {"W": normal(4, 3, 1, 1), "V": normal(2, 4, 1, 1, seed=1)}
    model = stage_of(body, "float[1,3,4,4] x", "y", constants)
    inputs = random_inputs(model)
    written = write(tmp_path, quantized(model, inputs), Precision.INT8)
    weights = written.path.with_suffix(".bin")
    first, second = read_storage(weights, written.layers).values()
    largest = np.abs(constants["W"]).reshape(4, -1).max(axis=1)
    np.testing.assert_allclose(first.scales[0], 127 / largest, rtol=1e-6)
    np.testing.assert_allclose(first.scales[1], 127 / np.abs(inputs["x"]).max(), rtol=1e-6)
    assert first.scales[2] == second.scales[1]  # what is handed on is what is read
    assert len(second.scales) == 2
    text = TARGET.inspect(written.path)
    assert f"reads int8 in steps of {np.abs(inputs['x']).max() / 127:.6g}" in text
    assert f"hands on int8 in steps of {1 / second.scales[1][0]:.6g}" in text


def test_a_scale_of_zero_is_refused(tmp_path: Path) -> None:
    model = stage_of(
        "y = Conv<kernel_shape=[1,1]>(x, W)", "float[1,3,4,4] x", "y", {"W": normal(4, 3, 1, 1)}
    )
    written = write(tmp_path, quantized(model, random_inputs(model)), Precision.INT8)
    weights = written.path.with_suffix(".bin")
    weights.write_bytes(weights.read_bytes()[:-4] + bytes(4))
    with pytest.raises(SourceError, match="scale that is not above zero"):
        TARGET.inspect(written.path)


def test_a_missing_bin_file_is_told(tmp_path: Path) -> None:
    path = small(tmp_path).path
    path.with_suffix(".bin").unlink()
    with pytest.raises(SourceError, match=r"beside the \.param file"):
        TARGET.inspect(path)


def test_a_param_file_is_known_by_its_content(tmp_path: Path) -> None:
    path = small(tmp_path).path
    other = tmp_path / "whatever.txt"
    other.write_bytes(path.read_bytes())
    assert TARGET.recognizes(other)
    assert not TARGET.recognizes(path.with_suffix(".bin"))
    assert not TARGET.recognizes(tmp_path)
    assert not TARGET.recognizes(tmp_path / "none")


def test_inspect_tells_layers_weights_and_integers(tmp_path: Path) -> None:
    text = TARGET.inspect(small(tmp_path, Precision.FP16).path)
    assert "ncnn, 7 layers, 8 blobs" in text
    assert "weights: 3 float16" in text
    assert "r = Convolution(in0), channels 4, kernel 3, stride 2" in text
    assert "clip [0.0, 6.0]" in text
    assert "out0 = InnerProduct(m), channels 5, float16" in text


def test_random_inputs_reach_every_named_blob(tmp_path: Path) -> None:
    written = small(tmp_path)
    assert set(written.run_all(random_inputs_of(written))) == {"r", "d", "a", "m", "y"}


def random_inputs_of(written: Written) -> dict[str, np.ndarray]:
    shapes = {s.name: (1, *s.shape) for s in written.artifact.inputs}
    return {name: normal(*shape) for name, shape in shapes.items()}
