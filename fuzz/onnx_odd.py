"""ONNX models that are odd in what they mean, rather than in their bytes."""

from __future__ import annotations

import random

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import AttributeProto, TensorProto

from fuzz.mutate import mutate_protobuf

_DIMS = (0, 1, 2, 3, 5, 8, -1, 1 << 31, 1 << 40, -(1 << 63))
_VALUES: tuple[object, ...] = (0, -1, 1, 3, 1 << 40, 1.5, "s", [1, 1], [0, 0], [-1, 2], [1, 1, 1, 1],
                               [9, 9, 9, 9, 9, 9, 9, 9], [1.0], float("nan"), [])  # fmt: skip


def mutate_onnx(data: bytes, rng: random.Random) -> bytes:
    """Mutate names, ops, attributes, dims, dtypes and the wiring of a model."""
    if rng.random() < 0.4:
        return mutate_protobuf(data, rng)
    model = onnx.ModelProto.FromString(data)
    try:
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            rng.choice(_ODD)(model, rng)
        return bytes(model.SerializeToString())
    except DecodeError:  # protobuf itself holds no graph that deep
        return mutate_protobuf(data, rng)


def _node(model: onnx.ModelProto, rng: random.Random) -> onnx.NodeProto:
    if not model.graph.node:
        model.graph.node.add(op_type="Relu", input=["input"], output=["odd"])
    return rng.choice(model.graph.node)


def _names(model: onnx.ModelProto) -> list[str]:
    graph = model.graph
    names = [o for n in graph.node for o in n.output]
    return [*names, *(i.name for i in graph.initializer), *(i.name for i in graph.input), "", "?"]


def _change_op(model: onnx.ModelProto, rng: random.Random) -> None:
    ops = sorted({s.name for s in onnx.defs.get_all_schemas()})
    _node(model, rng).op_type = rng.choice((*ops, *(n.op_type for n in model.graph.node), ""))


def _change_input(model: onnx.ModelProto, rng: random.Random) -> None:
    node = _node(model, rng)
    kind = rng.randrange(3)
    if kind == 0 or not node.input:
        node.input.append(rng.choice(_names(model)))
    elif kind == 1:
        node.input[rng.randrange(len(node.input))] = rng.choice(_names(model))
    else:
        del node.input[rng.randrange(len(node.input))]


def _change_output(model: onnx.ModelProto, rng: random.Random) -> None:
    node = _node(model, rng)
    if node.output and rng.random() < 0.5:
        node.output[rng.randrange(len(node.output))] = rng.choice(_names(model))
    elif node.output and rng.random() < 0.5:
        del node.output[0]
    else:
        node.output.append(rng.choice((*_names(model), "extra")))


def _change_attribute(model: onnx.ModelProto, rng: random.Random) -> None:
    node = _node(model, rng)
    kind = rng.randrange(4)
    if node.attribute and kind == 0:
        del node.attribute[rng.randrange(len(node.attribute))]
    elif node.attribute and kind == 1:
        rng.choice(node.attribute).type = rng.randrange(0, 15)  # type: ignore[assignment]
    else:
        name = rng.choice([*(a.name for a in node.attribute), *_ATTRIBUTES])
        kept = [a for a in node.attribute if a.name != name]
        del node.attribute[:]
        node.attribute.extend(kept)
        node.attribute.append(_attribute(name, rng.choice(_VALUES)))


_ATTRIBUTES = ("axis", "axes", "group", "strides", "pads", "kernel_shape", "dilations", "perm",
               "to", "mode", "transB", "alpha", "auto_pad", "keepdims", "value", "epsilon")  # fmt: skip


def _attribute(name: str, value: object) -> AttributeProto:
    if value == []:
        return AttributeProto(name=name, type=AttributeProto.INTS)
    return onnx.helper.make_attribute(name, value)


def _change_tensor(model: onnx.ModelProto, rng: random.Random) -> None:
    if not model.graph.initializer:
        return
    tensor = rng.choice(model.graph.initializer)
    kind = rng.randrange(7)
    if kind == 0 and tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(_DIMS)
    elif kind == 1:
        tensor.dims.append(rng.choice(_DIMS))
    elif kind == 2:
        tensor.data_type = rng.randrange(0, 30)
    elif kind == 3:
        tensor.name = rng.choice(_names(model))
    elif kind == 4:
        tensor.raw_data = tensor.raw_data[: rng.randrange(len(tensor.raw_data) + 1)]
    elif kind == 5:
        tensor.data_location = TensorProto.EXTERNAL
        place = rng.choice(("x.bin", "../x", "/etc/passwd", "", "seed.onnx"))
        tensor.external_data.add(key="location", value=place)
        tensor.external_data.add(key="offset", value=rng.choice(("0", "-5", "9" * 30, "a")))
    else:
        tensor.float_data.append(1.0)


def _change_value(model: onnx.ModelProto, rng: random.Random) -> None:
    graph = model.graph
    values = [*graph.input, *graph.output, *graph.value_info]
    if not values:
        return
    value = rng.choice(values)
    kind = rng.randrange(6)
    if kind == 0:
        value.ClearField("type")
    elif kind == 1:
        value.type.tensor_type.elem_type = rng.randrange(0, 30)
    elif kind == 2:
        value.name = rng.choice(_names(model))
    elif kind == 3:
        value.type.tensor_type.shape.dim.add(dim_value=rng.choice(_DIMS))
    elif kind == 4:
        value.type.sequence_type.elem_type.tensor_type.elem_type = 1
    elif value.type.tensor_type.shape.dim:
        rng.choice(value.type.tensor_type.shape.dim).dim_value = rng.choice(_DIMS)


def _change_model(model: onnx.ModelProto, rng: random.Random) -> None:
    kind = rng.randrange(6)
    if kind == 0:
        model.opset_import[0].version = rng.choice((0, 1, 7, 9, 11, 12, 13, 17, 18, 20, 25, 1 << 40))  # fmt: skip
    elif kind == 1:
        model.opset_import.add(domain=rng.choice(("", "ai.onnx", "x")), version=rng.randrange(30))
    elif kind == 2:
        function = model.functions.add(name=_node(model, rng).op_type, domain="local")
        function.input.append("a")
        function.output.append("b")
        function.node.add(op_type=rng.choice((function.name, "Relu")), domain=rng.choice(("", "local")), input=["a"], output=["b"])  # fmt: skip
        function.opset_import.add(domain="", version=17)
        _node(model, rng).domain = "local"
    elif kind == 3:
        nodes = list(model.graph.node)
        rng.shuffle(nodes)
        del model.graph.node[:]
        model.graph.node.extend(nodes)
    elif kind == 4:
        _node(model, rng).domain = rng.choice(("", "ai.onnx", "x", "deploykit", "com.microsoft"))
    else:
        inner = model
        for _ in range(rng.choice((1, 3, 12, 25))):
            outer = onnx.ModelProto()
            node = outer.graph.node.add(op_type="If", input=["c"], output=["o"])
            for name in ("then_branch", "else_branch"):
                attribute = node.attribute.add(name=name, type=AttributeProto.GRAPH)
                attribute.g.CopyFrom(inner.graph if name == "then_branch" else model.graph)
            inner = outer
            if inner.ByteSize() > 1 << 22:
                break
        model.graph.node.append(inner.graph.node[0])


_ODD = (
    *(_change_op, _change_input, _change_output, _change_attribute, _change_attribute),
    *(_change_tensor, _change_value, _change_model),
)
