"""What the door refuses of an ONNX file, and that it lets sound ones pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from deploykit.errors import SourceError, UnsupportedModelError
from deploykit.limits import Limits, limits_set
from deploykit.sources.onnx_check import check_proto
from deploykit.sources.onnx_file import read_onnx

Change = Callable[[onnx.ModelProto], object]


def _model() -> onnx.ModelProto:
    weights = np.ones((4, 3, 1, 1), np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], "conv", strides=[1, 1]),
            helper.make_node("Relu", ["c"], ["y"], "relu"),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 4, 4])],
        [numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _attribute(model: onnx.ModelProto) -> AttributeProto:
    return model.graph.node[0].attribute[0]


def _call_itself(model: onnx.ModelProto) -> None:
    function = model.functions.add(name="F", domain="local", input=["a"], output=["b"])
    function.node.add(op_type="F", domain="local", input=["a"], output=["b"])
    function.opset_import.add(domain="", version=17)


def _function_with_a_file(model: onnx.ModelProto) -> None:
    function = model.functions.add(name="F", domain="local", output=["b"])
    node = function.node.add(op_type="Constant", output=["b"])
    tensor = TensorProto(data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../secret")
    node.attribute.append(helper.make_attribute("value", tensor))


def _external(offset: str, length: str) -> Change:
    def change(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": "w.bin", "offset": offset, "length": length}.items():
            tensor.external_data.add(key=key, value=value)

    return change


REFUSED: dict[str, tuple[Change, str]] = {
    "dims beyond the data": (lambda m: m.graph.initializer[0].dims.append(2), "bytes, not 96"),
    "negative dim": (lambda m: m.graph.initializer[0].dims.append(-1), "has the shape"),
    "overflow": (lambda m: m.graph.initializer[0].dims.extend([1 << 62] * 9), "bytes, not"),
    "element type": (lambda m: setattr(m.graph.initializer[0], "data_type", 77), "type 77"),
    "no element type": (lambda m: setattr(m.graph.initializer[0], "data_type", 0), "type 0"),
    "data twice": (lambda m: m.graph.initializer[0].float_data.append(1), "twice"),
    "offset": (_external("-5", "48"), "offset '-5'"),
    "length": (_external("0", "12"), "12 bytes, not 48"),
    "input type": (
        lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 99), "element type 99"),
    "unnamed input": (lambda m: setattr(m.graph.input[0], "name", ""), "an input has no name"),
    "two initializers": (
        lambda m: m.graph.initializer.append(m.graph.initializer[0]), "initializer is there twice"),
    "two makers": (lambda m: m.graph.node.append(m.graph.node[0]), "two nodes make"),
    "nothing makes it": (lambda m: m.graph.node[1].input.__setitem__(0, "z"), "'z'"),
    "no op": (lambda m: setattr(m.graph.node[0], "op_type", ""), "has no op"),
    "attribute type": (lambda m: setattr(_attribute(m), "type", 2), "another type"),
    "attribute unknown type": (lambda m: setattr(_attribute(m), "type", 0), "unknown type"),
    "declared type": (
        lambda m: m.graph.node[0].attribute.append(helper.make_attribute("group", "g")), "takes"),
    "attribute twice": (lambda m: m.graph.node[0].attribute.append(_attribute(m)), "twice"),
    "attribute of no op": (lambda m: setattr(_attribute(m), "name", "strid"), "does not have"),
    "required attribute": (
        lambda m: (setattr(m.graph.node[1], "op_type", "Cast")), "lacks the attribute 'to'"),
    "too many inputs": (lambda m: m.graph.node[1].input.append("x"), "2 inputs"),
    "too few inputs": (lambda m: m.graph.node[0].input.pop(), "1 inputs"),
    "empty input": (lambda m: m.graph.node[0].input.__setitem__(0, ""), "lacks its input 0"),
    "no outputs": (lambda m: m.graph.node[0].output.pop(), "has 0 outputs"),
    "reference outside": (
        lambda m: setattr(_attribute(m), "ref_attr_name", "a"), "outside of a function"),
    "two opsets": (lambda m: m.opset_import.add(domain="ai.onnx", version=9), "two opsets"),
    "opset": (lambda m: setattr(m.opset_import[0], "version", 1 << 40), "declares the opset"),
    "recursion": (_call_itself, "calls itself"),
    "function's file": (_function_with_a_file, "another file"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, tmp_path: Path) -> None:
    change, words = REFUSED[name]
    model = _model()
    change(model)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(SourceError, match=words):
        read_onnx(path)


def test_a_sound_model_passes(tmp_path: Path) -> None:
    check_proto(_model(), tmp_path / "m.onnx")


def test_sparse_constants_are_unsupported(tmp_path: Path) -> None:
    model = _model()
    node = model.graph.node.add(op_type="Constant", output=["k"])
    node.attribute.add(name="sparse_value", type=AttributeProto.SPARSE_TENSOR)
    with pytest.raises(UnsupportedModelError, match="sparse"):
        check_proto(model, tmp_path / "m.onnx")


def test_limits_of_nodes_and_nesting(tmp_path: Path) -> None:
    model = _model()
    for index in range(10):
        model.graph.node.add(op_type="Relu", input=["x"], output=[f"r{index}"])
    with limits_set(Limits(nodes=11)), pytest.raises(SourceError, match="more than 11 nodes"):
        check_proto(model, tmp_path / "m.onnx")
    inner = _model().graph
    for _ in range(5):
        outer = onnx.GraphProto(name="outer")
        node = outer.node.add(op_type="Odd", domain="x", output=["o"])
        node.attribute.append(helper.make_attribute("body", inner))
        inner = outer
    model = _model()
    model.graph.node.extend(inner.node)
    check_proto(model, tmp_path / "m.onnx")
    with limits_set(Limits(nesting=3)), pytest.raises(SourceError, match="more than 3 deep"):
        check_proto(model, tmp_path / "m.onnx")


def test_a_name_cannot_steer_the_terminal(tmp_path: Path) -> None:
    model = _model()
    model.graph.node[1].input[0] = "\x1b[2J" + "z" * 10_000
    with pytest.raises(SourceError) as caught:
        check_proto(model, tmp_path / "m.onnx")
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 600
