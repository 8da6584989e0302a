"""The bytes: what the format and its readers want."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.tensors import QuantParams
from deploykit_tflite.tflite_graph import TfliteGraph
from deploykit_tflite.write_flatbuffer import load_schema, write_flatbuffer


def graph_of(constant: np.ndarray) -> TfliteGraph:
    graph = TfliteGraph()
    x = graph.add_tensor("x", constant.shape, constant.dtype.name)
    c = graph.add_constant("c", constant)
    graph.add_constant("unused", np.arange(3000, dtype=np.float32))
    y = graph.add_tensor("y", constant.shape, constant.dtype.name)
    graph.add_op("ADD", (x, c), (y,), "AddOptions", fusedActivationFunction=0)
    g = graph.add_tensor("g", constant.shape, constant.dtype.name)
    graph.add_op("GELU", (y,), (g,), "GeluOptions", approximate=False)
    graph.inputs, graph.outputs = [x], [g]
    return graph


def model_of(data: bytes):
    schema = load_schema()
    return schema.Model.GetRootAs(data, 0)


@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 7, 3, 11), ()])
def test_contents_are_aligned_and_in_c_order(shape: tuple[int, ...]) -> None:
    constant = np.random.default_rng(0).standard_normal(shape[::-1]).astype(np.float32).T
    data = write_flatbuffer(graph_of(constant), "test").data
    model = model_of(data)
    subgraph = model.Subgraphs(0)
    tensor = next(
        subgraph.Tensors(i)
        for i in range(subgraph.TensorsLength())
        if subgraph.Tensors(i).Name() == b"c"
    )
    raw = model.Buffers(tensor.Buffer()).DataAsNumpy()
    np.testing.assert_array_equal(raw.view(np.float32).reshape(shape), constant)
    for i in range(1, model.BuffersLength()):
        buffer = model.Buffers(i)
        start = buffer._tab.Vector(buffer._tab.Offset(4))
        assert start % 16 == 0


def test_header() -> None:
    written = write_flatbuffer(graph_of(np.ones((2, 2), np.float32)), "what it is")
    model = model_of(written.data)
    assert written.data[4:8] == b"TFL3"
    assert model.Version() == 3
    assert model.Description() == b"what it is"
    assert model.Buffers(0).DataIsNone()
    assert model.Metadata(0).Name() == b"min_runtime_version"
    raw = bytes(model.Buffers(model.Metadata(0).Buffer()).DataAsNumpy())
    assert len(raw) == 16
    assert raw.rstrip(b"\0") == b"2.9.0"  # GELU
    assert written.min_runtime_version == "2.9.0"
    assert written.op_counts == {"ADD": 1, "GELU": 1}


def test_codes_above_127_are_written_for_old_readers_too() -> None:
    model = model_of(write_flatbuffer(graph_of(np.ones((2, 2), np.float32)), "").data)
    codes = [
        (model.OperatorCodes(i).BuiltinCode(), model.OperatorCodes(i).DeprecatedBuiltinCode())
        for i in range(model.OperatorCodesLength())
    ]
    assert codes == [(0, 0), (150, 127)]


def test_constants_that_nothing_reads_are_left_out() -> None:
    data = write_flatbuffer(graph_of(np.ones((2, 2), np.float32)), "").data
    assert len(data) < 3000


def test_signature_names_the_ends() -> None:
    model = model_of(write_flatbuffer(graph_of(np.ones((2, 2), np.float32)), "").data)
    signature = model.SignatureDefs(0)
    assert signature.SignatureKey() == b"serving_default"
    assert signature.Inputs(0).Name() == b"x"
    assert signature.Outputs(0).Name() == b"g"


def test_small_constants_are_shared_and_large_ones_are_not_compared() -> None:
    graph = TfliteGraph()
    assert graph.add_integers("a", (1, 2)) == graph.add_integers("b", (1, 2))
    assert graph.add_integers("c", (1, 3)) != graph.add_integers("a", (1, 2))
    zero = np.zeros(1, np.int8)
    params = QuantParams((0.5,), (0,))
    assert graph.add_constant("d", zero, params) != graph.add_constant("e", zero)
    assert graph.add_constant("f", zero, params) == graph.add_constant("g", zero, params)


def test_names_are_unique() -> None:
    graph = TfliteGraph()
    indices = [graph.add_tensor("x", (1,), "float32") for _ in range(3)]
    assert [graph.tensors[i].name for i in indices] == ["x", "x:2", "x:3"]
    graph.rename(indices[0], "z")
    assert graph.tensors[graph.add_tensor("x", (1,), "float32")].name == "x"
