from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from deploykit.errors import SourceError, UnsupportedModelError
from deploykit.graph.ops import OPSET
from deploykit.sources.load import load
from deploykit.sources.options import LoadOptions


def write(path: Path, text: str) -> Path:
    onnx.save(parser.parse_model(text), path)
    return path


def results(data: bytes, x: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})


@pytest.mark.parametrize("opset", [11, 12, 13, 17, 18, 20, 21, 23])
def test_opsets_from_11_on_keep_their_numbers(tmp_path: Path, opset: int) -> None:
    # Softmax, Squeeze and ReduceMean changed their meaning or form on the way.
    axes = ", axes = [2, 3]" if opset < 18 else ""
    mean = "ReduceMean <keepdims = 1, axes = [2, 3]> (c)" if axes else "ReduceMean(c, axes)"
    squeeze = "Squeeze <axes = [2, 3]> (m)" if opset < 13 else "Squeeze(m, axes)"
    text = f"""
    <ir_version: 8, opset_import: ["" : {opset}]>
    net (float[1,3,4,4] x) => (float[1,2] y)
    <float[2,3,1,1] w = {{1., -2., 3., 4., 0.5, -1.}}, int64[2] axes = {{2, 3}}>
    {{ c = Conv(x, w)  m = {mean}  s = {squeeze}  y = Softmax <axis = 1> (s) }}
    """
    path = write(tmp_path / "net.onnx", text)
    x = np.random.default_rng(0).standard_normal((1, 3, 4, 4)).astype(np.float32)
    model = load(path)
    assert model.graph.opset_imports[""] == OPSET
    np.testing.assert_allclose(
        results(model.serialized(), x)[0], results(path.read_bytes(), x)[0], rtol=1e-5
    )


@pytest.mark.parametrize("opset", [7, 8, 9, 10])
def test_old_opsets_are_upgraded_with_a_note(tmp_path: Path, opset: int) -> None:
    # Upsample, Slice, Clip, Pad and Dropout had their numbers in attributes.
    up = (
        'Upsample <scales = [1., 1., 2., 2.], mode = "linear"> (c)'
        if opset < 9
        else 'Upsample <mode = "linear"> (c, scales)'
    )
    if opset == 10:
        up = 'Resize <mode = "nearest"> (c, scales)'
    cut = (
        "Slice <axes = [2, 3], starts = [1, 0], ends = [7, 8]> (u)"
        if opset < 10
        else "Slice (u, starts, ends, axes)"
    )
    text = f"""
    <ir_version: 4, opset_import: ["" : {opset}]>
    net (float[1,3,4,4] x) => (float[1,2,8,10] y)
    <float[2,3,1,1] w = {{1., -2., 3., 4., 0.5, -1.}}, float[4] scales = {{1., 1., 2., 2.}},
     int64[2] starts = {{1, 0}}, int64[2] ends = {{7, 8}}, int64[2] axes = {{2, 3}}>
    {{ c = Conv(x, w)  u = {up}  s = {cut}  l = Clip <min = -1.5, max = 2.0> (s)
       d = Dropout <ratio = 0.5> (l)
       y = Pad <mode = "constant", pads = [0, 0, 1, 1, 0, 0, 1, 1], value = 0.25> (d) }}
    """
    path = write(tmp_path / "old.onnx", text)
    x = np.random.default_rng(0).standard_normal((1, 3, 4, 4)).astype(np.float32)
    model = load(path)
    assert [(n.pass_name, n.reason) for n in model.notes] == [
        ("upgrade_opset", f"opset {opset} > {OPSET}")
    ]
    np.testing.assert_allclose(
        results(model.serialized(), x)[0], results(path.read_bytes(), x)[0], rtol=1e-5
    )


def test_opset_6_is_too_old(tmp_path: Path) -> None:
    text = '<ir_version: 3, opset_import: ["" : 6]> n (float[1] x) => (float[1] y) { y = Relu(x) }'
    with pytest.raises(SourceError, match="opset 6"):
        load(write(tmp_path / "old.onnx", text))


def test_ops_newer_than_ours_are_named(tmp_path: Path) -> None:
    text = (
        '<ir_version: 10, opset_import: ["" : 24]> n (float[1] x) => (float[1] y) { y = Swish(x) }'
    )
    with pytest.raises(UnsupportedModelError, match="Swish"):
        load(write(tmp_path / "new.onnx", text))


DYNAMIC = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[N,3,H,W] x) => (float[N,3,H,W] y) { y = Relu(x) }
"""


def test_dynamic_dimensions_are_pinned_or_named(tmp_path: Path) -> None:
    path = write(tmp_path / "dynamic.onnx", DYNAMIC)
    with pytest.raises(SourceError, match=r"'H'.*'W'"):
        load(path)
    model = load(path, options=LoadOptions(input_shape=(1, 3, 8, 6)))
    assert model.inputs[0].shape == (1, 3, 8, 6)
    assert model.outputs[0].shape == (1, 3, 8, 6)


def test_a_dynamic_batch_alone_is_pinned_to_one(tmp_path: Path) -> None:
    path = write(tmp_path / "batch.onnx", DYNAMIC.replace("3,H,W", "3,8,8"))
    assert load(path).inputs[0].shape == (1, 3, 8, 8)
    four = load(path, options=LoadOptions(input_shape=(4, 3, 8, 8)))
    assert four.inputs[0].shape == (4, 3, 8, 8)


def test_a_fixed_shape_is_not_overruled(tmp_path: Path) -> None:
    path = write(tmp_path / "fixed.onnx", DYNAMIC.replace("N,3,H,W", "1,3,8,8"))
    with pytest.raises(SourceError, match="fixed at 1x3x8x8"):
        load(path, options=LoadOptions(input_shape=(1, 3, 16, 16)))


def test_initializers_that_are_inputs_too_are_no_inputs(tmp_path: Path) -> None:
    text = """
    <ir_version: 3, opset_import: ["" : 11]>
    net (float[1,2] x, float[2] w) => (float[1,2] y) <float[2] w = {1., 2.}> { y = Mul(x, w) }
    """
    path = write(tmp_path / "legacy.onnx", text)
    assert [s.name for s in load(path).inputs] == ["x"]


def test_inputs_that_are_no_floats_are_refused(tmp_path: Path) -> None:
    text = (
        '<ir_version: 8, opset_import: ["" : 17]> '
        "n (int64[2] x) => (float[2] y) <float[3] t = {1, 2, 3}> { y = Gather (t, x) }"
    )
    with pytest.raises(SourceError, match="'x'.*int64"):
        load(write(tmp_path / "ints.onnx", text))


def test_an_input_that_is_cast_is_read_as_floats(tmp_path: Path) -> None:
    text = (
        '<ir_version: 8, opset_import: ["" : 17]> '
        "n (uint8[2] x) => (float[2] y) { f = Cast <to = 1> (x) y = Neg (f) }"
    )
    model = load(write(tmp_path / "pixels.onnx", text))
    assert [(s.name, s.dtype) for s in model.inputs] == [("x", "float32")]
    assert [note.reason for note in model.notes] == ["an input of uint8 that is cast > float32"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_named(tmp_path: Path, value: float) -> None:
    bad = np.ones(4, np.float32)
    bad[2] = value
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "scale"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])],
        [numpy_helper.from_array(bad, "scale")],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "bad.onnx")
    with pytest.raises(SourceError, match="NaN or infinity in scale"):
        load(tmp_path / "bad.onnx")


def test_an_input_without_axes_is_refused(tmp_path: Path) -> None:
    text = (
        '<ir_version: 8, opset_import: ["" : 17]> '
        "n (float[1,2] x, float s) => (float[1,2] y) { y = Mul(x, s) }"
    )
    with pytest.raises(UnsupportedModelError, match="'s' .* is a single number"):
        load(write(tmp_path / "scalar.onnx", text))


def test_infinity_is_a_number_as_a_bound_or_a_mask(tmp_path: Path) -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    n (float[1,2,4,4] x) => (float[1,2,4,4] y)
    <int64[8] p = {0, 0, 0, 0, 0, 0, 1, 1}, float ninf = {0.0}>
    { d = Pad(x, p, ninf)  y = MaxPool <kernel_shape = [2, 2]> (d) }
    """
    proto = onnx.parser.parse_model(text)
    (fill,) = (t for t in proto.graph.initializer if t.name == "ninf")
    fill.CopyFrom(numpy_helper.from_array(np.float32(-np.inf), "ninf"))
    onnx.save(proto, tmp_path / "pad.onnx")
    assert load(tmp_path / "pad.onnx").graph.graph.initializers["ninf"] is not None


def external(folder: Path) -> Path:
    weights = np.arange(2048, dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "scale"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2048])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2048])],
        [numpy_helper.from_array(weights, "scale")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder.mkdir(exist_ok=True)
    path = folder / "net.onnx"
    onnx.save(model, path, save_as_external_data=True, location="net.data")
    assert (folder / "net.data").exists()
    return path


def test_external_data_beside_the_file_are_read(tmp_path: Path) -> None:
    path = external(tmp_path / "a")
    model = load(path)
    (tmp_path / "a" / "net.data").unlink()  # they are in memory now
    y = results(model.serialized(), np.ones(2048, np.float32))[0]
    assert np.array_equal(y, np.arange(2048))


def moved_to(path: Path, location: str) -> Path:
    """The model, with its weights said to lie elsewhere."""
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("location", ["../a/net.data", "sub/../../a/net.data", "{absolute}", ""])
def test_external_data_elsewhere_are_not_read(tmp_path: Path, location: str) -> None:
    path = external(tmp_path / "a")
    path = moved_to(path, location.format(absolute=tmp_path / "a" / "net.data"))
    with pytest.raises(SourceError, match="outside of its own folder"):
        load(path)


def test_external_data_that_are_missing(tmp_path: Path) -> None:
    path = external(tmp_path / "a")
    (tmp_path / "a" / "net.data").unlink()
    with pytest.raises(SourceError, match="there is no such file"):
        load(path)


def test_external_data_that_are_cut_off(tmp_path: Path) -> None:
    path = external(tmp_path / "a")
    data = tmp_path / "a" / "net.data"
    data.write_bytes(data.read_bytes()[:-4])
    with pytest.raises(SourceError, match="ends before the tensor"):
        load(path)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    path = external(tmp_path / "a")
    data = tmp_path / "a" / "net.data"
    outside = tmp_path / "outside.data"
    data.rename(outside)
    data.symlink_to(outside)
    with pytest.raises(SourceError, match="leads out of its folder"):
        load(path)


def test_a_graph_with_a_value_that_nothing_makes(tmp_path: Path) -> None:
    model = parser.parse_model(DYNAMIC.replace("N,3,H,W", "1,3,8,8"))
    model.graph.node[0].input[0] = "nowhere"
    (tmp_path / "torn.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(SourceError, match="nowhere"):
        load(tmp_path / "torn.onnx")


def test_nodes_in_the_wrong_order_are_put_right_or_refused(tmp_path: Path) -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    net (float[1,2] x) => (float[1,2] y) { a = Relu(x)  b = Neg(a)  y = Abs(b) }
    """
    model = parser.parse_model(text)
    nodes = [model.graph.node[i] for i in (2, 0, 1)]
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    (tmp_path / "shuffled.onnx").write_bytes(model.SerializeToString())
    loaded = load(tmp_path / "shuffled.onnx")
    y = results(loaded.serialized(), np.float32([[1, -2]]))[0]
    assert y.tolist() == [[1, 0]]
