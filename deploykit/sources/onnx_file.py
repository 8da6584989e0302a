"""ONNX files: read, checked, and brought to static shapes and one opset.

Only what can be told from the file is done here; shapes inside of the graph are inferred by the
passes. External data is read from the file's own folder and nowhere else.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deploykit.errors import SourceError, UnsupportedModelError
from deploykit.passes.base import Findings
from deploykit.printable import last_line

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

_IR_VERSION = 10  # the newest that every supported ONNX Runtime reads; opset 20 needs 9


def read_onnx(
    path: Path, input_shape: tuple[int, ...] = (), findings: Findings | None = None
) -> ir.Model:
    """Read an .onnx file.

    Args:
        path: The file.
        input_shape: Pins the dynamic dimensions of the input; empty to pin a dynamic batch to 1.
        findings: Where to note what is read otherwise than the file has it: float16, inputs of
            integers, dynamic quantization.

    Returns:
        The model, with all weights in memory, opset `deploykit.graph.ops.OPSET`, static float32
        inputs that are no initializers, and a name on every node.

    Raises:
        SourceError: damaged, external data missing or outside of the folder, opset below 7,
            dynamic dimensions that nothing pins, inputs that are no floats and are not made
            such, NaN in the weights.
        UnsupportedModelError: a newer opset's ops, sequences or sparse weights.
    """
    from deploykit.graph.lazy_sympy import import_onnx_ir
    from deploykit.sources.onnx_check import check_proto
    from deploykit.sources.onnx_opset import bring_to_opset
    from deploykit.sources.onnx_repairs import repair_graph

    import_onnx_ir()
    import onnx_ir as ir

    proto = _parse(path)
    check_proto(proto, path)
    _check_external_data(proto, path)
    if proto.graph.sparse_initializer:
        raise UnsupportedModelError(
            f"{path} has sparse weights", advice="export it with dense weights"
        )
    repair_graph(proto.graph, str(path))
    proto = bring_to_opset(proto, str(path))
    try:
        model = ir.from_proto(proto)
        ir.external_data.set_base_dir(model.graph, str(path.parent))
        model = ir.external_data.load_to_model(model)
    except Exception as error:  # onnx_ir raises what it stumbles over
        raise SourceError(
            f"{path} is a damaged ONNX file: {last_line(error)}",
            advice="check it with onnx.checker, or export it again",
        ) from error
    model.ir_version = _IR_VERSION
    _read_as_floats(model, Findings("read_onnx") if findings is None else findings)
    _check_inputs(model.graph, path)
    _pin_shapes(model.graph, input_shape, path)
    _check_values(model.graph, path)
    _check_numbers(model.graph, path)
    _name_nodes(model.graph)
    return model


def _parse(path: Path) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    proto = onnx.ModelProto()
    try:
        with (
            path.open("rb") as stream,
            mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as view,
        ):
            proto.ParseFromString(view)  # copies what it needs: the file is never held twice
    except DecodeError as error:
        raise SourceError(
            f"{path} is a damaged ONNX file: {error}", advice="get the file again"
        ) from error
    if not proto.graph.node:
        raise SourceError(f"{path} has no nodes in its graph", expected="a network")
    return proto


def _external_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    import onnx

    tensors = list(graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                tensors.append(attribute.t)
            tensors.extend(attribute.tensors)
            for inner in [attribute.g] if attribute.HasField("g") else list(attribute.graphs):
                yield from _external_tensors(inner)
    yield from (t for t in tensors if t.data_location == onnx.TensorProto.EXTERNAL)


def _check_external_data(proto: onnx.ModelProto, path: Path) -> None:
    folder = path.parent.resolve()
    for tensor in _external_tensors(proto.graph):
        entries = {e.key: e.value for e in tensor.external_data}
        location = entries.get("location", "")
        where = f"{path} keeps the tensor '{tensor.name}' in '{location}'"
        parts = Path(location).parts
        if not location or Path(location).is_absolute() or "\\" in location or ".." in parts:
            raise SourceError(
                f"{where}, which is outside of its own folder; it was not read",
                expected="a file beside the model",
                advice="save it again: onnx.save(model, FILE, save_as_external_data=True)",
            )
        resolved = (folder / location).resolve()
        if not resolved.is_relative_to(folder):
            raise SourceError(
                f"{where}, a link that leads out of its folder; it was not read",
                expected="a file beside the model",
            )
        if not resolved.is_file():
            raise SourceError(
                f"{where}, and there is no such file",
                advice=f"copy it to {folder}, beside the model",
            )
        try:
            end = int(entries.get("offset", 0)) + int(entries.get("length", 0))
        except ValueError as error:
            raise SourceError(f"{where}, at a place that is no number") from error
        if end > resolved.stat().st_size:
            raise SourceError(
                f"{where}, which ends before the tensor does",
                advice="it was not copied completely: get it again",
            )


def _read_as_floats(model: ir.Model, findings: Findings) -> None:
    from deploykit.sources.dynamic_quantization import remove_dynamic_quantization
    from deploykit.sources.onnx_types import read_inputs_as_floats, widen_floats

    widen_floats(model, findings)
    read_inputs_as_floats(model.graph, findings)
    remove_dynamic_quantization(model.graph, findings)


def _check_inputs(graph: ir.Graph, path: Path) -> None:
    import onnx_ir as ir

    if not graph.inputs:
        raise SourceError(f"{path} has no inputs")
    if not graph.outputs:
        raise SourceError(f"{path} has no outputs")
    for value in graph.inputs:
        if isinstance(value.type, (ir.SequenceType, ir.OptionalType)):
            raise UnsupportedModelError(f"input '{value.name}' of {path} is no tensor")
        if value.dtype != ir.DataType.FLOAT:
            found = value.dtype.name.lower() if value.dtype is not None else "of no type"
            raise SourceError(
                f"input '{value.name}' of {path} is {found}",
                expected="float32 or float16 inputs, or integers that a Cast or DequantizeLinear "
                "makes floats",
                advice="export the network without its lookups, in float32; quantized inputs are "
                "an option of the target",
            )


def _pin_shapes(graph: ir.Graph, given: tuple[int, ...], path: Path) -> None:
    """Give every input a static shape, and its symbols the same value in the whole graph."""
    pinned: dict[str, int] = {}
    # A shape on the command line is the image's: the first input that has dynamic dimensions.
    first_dynamic = next(
        (v for v in graph.inputs if v.shape is None or not v.shape.is_static()), graph.inputs[0]
    )
    for value in graph.inputs:
        _pin_input(value, given if value is first_dynamic else (), pinned, path)
    for value in [
        *graph.outputs,
        *(o for n in graph.all_nodes() for o in n.outputs),
    ]:
        _pin_inner(value, pinned)


def _pin_input(value: ir.Value, given: tuple[int, ...], pinned: dict[str, int], path: Path) -> None:
    import onnx_ir as ir

    if value.shape is None:
        if not given:
            raise SourceError(
                f"input '{value.name}' of {path} has no shape",
                advice="give it, e.g. --input 1x3x224x224",
            )
        value.shape = ir.Shape(given)
        return
    dims = list(value.shape)
    if not dims:
        raise UnsupportedModelError(
            f"input '{value.name}' of {path} is a single number, without axes",
            expected="one axis or more, the first of which counts samples",
            advice="make it a constant, or give it one axis",
        )
    if given and len(given) != len(dims):
        raise SourceError(
            f"input '{value.name}' of {path} has {len(dims)} dimensions",
            expected=f"as many, not the {len(given)} of --input",
        )
    sizes: list[int] = []
    open_dims: list[str] = []
    for index, dim in enumerate(dims):
        symbol = dim.value if isinstance(dim, ir.SymbolicDim) else None
        if isinstance(dim, int) and dim > 0:
            if given and given[index] != dim:
                raise SourceError(
                    f"input '{value.name}' of {path} is fixed at {_written(dims)}",
                    expected=f"that, not --input {_written(given)}",
                    advice="export it again with the shape that you want",
                )
            size = dim
        elif given:
            size = given[index]
        elif symbol in pinned:
            size = pinned[symbol]
        elif index == 0:
            size = 1
        else:
            open_dims.append(f"{index} ('{symbol}')" if symbol else str(index))
            size = 0
        if symbol:
            pinned.setdefault(symbol, size)
        sizes.append(size)
    if open_dims:
        plural = "s" if len(open_dims) > 1 else ""
        raise SourceError(
            f"input '{value.name}' of {path} is {_written(dims)}: dynamic in dimension{plural} "
            f"{', '.join(open_dims)}",
            expected="a static shape (only a dynamic batch is pinned, to 1)",
            advice=f"give it, e.g. --input {_suggestion(dims)}",
        )
    value.shape = ir.Shape(sizes)


def _pin_inner(value: ir.Value, pinned: dict[str, int]) -> None:
    import onnx_ir as ir

    if value.shape is None or value.shape.is_static():
        return
    dims = [
        pinned.get(d.value or "", d) if isinstance(d, ir.SymbolicDim) else d for d in value.shape
    ]
    if all(isinstance(d, int) for d in dims):
        value.shape = ir.Shape(dims)
    else:  # an expression or an unknown: the passes infer it from the inputs
        value.shape = None if not value.is_graph_output() else ir.Shape(dims)


def _written(dims: object) -> str:
    assert isinstance(dims, (list, tuple))
    return "x".join(str(getattr(d, "value", d) or "?") for d in dims)


def _suggestion(dims: list[int | ir.SymbolicDim]) -> str:
    usual = (1, 3, 224, 224)
    filled = [
        d if isinstance(d, int) and d > 0 else (usual[i] if len(dims) == 4 else 1)
        for i, d in enumerate(dims)
    ]
    return _written(filled)


def _check_values(graph: ir.Graph, path: Path) -> None:
    """Refuse a graph with a value that nothing makes."""
    known = {id(v) for v in graph.inputs} | {id(v) for v in graph.initializers.values()}
    for node in graph:
        for value in node.inputs:
            if value is not None and value.producer() is None and id(value) not in known:
                raise SourceError(
                    f"{path} is a damaged ONNX file: node '{node.name or node.op_type}' reads "
                    f"'{value.name}', which nothing makes"
                )
    for value in graph.outputs:
        if value.producer() is None and id(value) not in known:
            raise SourceError(
                f"{path} is a damaged ONNX file: nothing makes its output '{value.name}'"
            )


#: Where infinity is a number like any other: bounds, masks, the padding of a maximum.
_TAKES_INFINITY = frozenset(
    {"Pad", "Clip", "Max", "Min", "Where", "Add", "Equal", "Greater", "Less", "Identity", "Cast"}
    | {"Expand", "Reshape", "Unsqueeze", "Squeeze", "Concat", "Constant", "ConstantOfShape"}
)


def _check_numbers(graph: ir.Graph, path: Path) -> None:
    bad = []
    for name, value in graph.initializers.items():
        tensor = value.const_value
        if tensor is None or not tensor.dtype.is_floating_point():
            continue
        # float32 does not overflow a float64 sum, and NaN and infinity survive it; this takes no
        # memory of the tensor's size.
        array = tensor.numpy()
        with np.errstate(invalid="ignore", over="ignore"):
            total = np.sum(array, dtype=np.float64)
        if np.isfinite(total) or np.isfinite(array.astype(np.float64)).all():
            continue
        readers = {use.node.op_type for use in value.uses()}
        if np.isnan(array.astype(np.float64)).any() or not readers <= _TAKES_INFINITY:
            bad.append(name)
    if bad:
        more = f" and {len(bad) - 6} more" if len(bad) > 6 else ""
        raise SourceError(
            f"{path} has NaN or infinity in {', '.join(bad[:6])}{more} ({len(bad)})",
            expected="finite weights",
            advice="the training diverged or the file is damaged: take an earlier checkpoint",
        )


def _name_nodes(graph: ir.Graph) -> None:
    taken = {node.name for node in graph.all_nodes() if node.name}
    for index, node in enumerate(graph.all_nodes()):
        if not node.name:
            name = (node.outputs[0].name if node.outputs else "") or f"{node.op_type}_{index}"
            while name in taken:
                name += "_"
            node.name = name
            taken.add(name)
