"""Any opset from 7 on to the one that the passes read (`deploykit.graph.ops.OPSET`).

Most ops did not change in between, or only took in more types or optional attributes: then the
declared opset is all there is to change, and no weight is touched. Where an op did change (axes
that became inputs, Softmax before 13), ONNX's own version converter rewrites the graph, without
the weights, which it would copy several times.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from deploykit.errors import SourceError, UnsupportedModelError
from deploykit.graph import native
from deploykit.graph.ops import OPSET

if TYPE_CHECKING:
    import onnx

#: ONNX Runtime promises opset 7 and later, and ONNX's version converter has rules from there on.
OLDEST = 7
#: Before this, so many ops have another form that every file goes through the version converter.
_REWRITTEN_WHOLE = 11
#: The note of an upgraded file is kept under this key of the model's metadata.
UPGRADED = "deploykit.upgraded"
_DEFAULT_DOMAINS = ("", "ai.onnx")

# Ops whose meaning changed within 11..OPSET: (op, from opset) needs rewriting if the file's opset
# is below. All other changes added types, optional inputs or attributes with neutral defaults.
# Source: the change log of the ONNX operators.
_REWRITTEN_AT = {
    "Softmax": 13,  # axis meant "flatten to two dimensions here"
    "LogSoftmax": 13,
    "Hardmax": 13,
    "Squeeze": 13,  # axes, and Split's sizes, became inputs
    "Unsqueeze": 13,
    "Split": 13,
    "ReduceSum": 13,
    "Dropout": 12,  # ratio became an input
    "BatchNormalization": 14,  # training outputs
    "ReduceL1": 18,
    "ReduceL2": 18,
    "ReduceLogSum": 18,
    "ReduceLogSumExp": 18,
    "ReduceMax": 18,
    "ReduceMean": 18,
    "ReduceMin": 18,
    "ReduceProd": 18,
    "ReduceSumSquare": 18,
    "GridSample": 20,  # names of the modes
}

# Ops whose meaning changed after OPSET, in ways that attributes do not show.
_CHANGED_AFTER = frozenset({"GroupNormalization"})


def bring_to_opset(proto: onnx.ModelProto, origin: str) -> onnx.ModelProto:
    """The same model at `OPSET`; ``proto`` may be changed, or returned.

    Raises:
        SourceError: the opset is below 7, or none is declared.
        UnsupportedModelError: an op is newer than `OPSET`, or cannot be rewritten.
    """
    declared = [e for e in proto.opset_import if e.domain in _DEFAULT_DOMAINS]
    if not declared:
        if proto.functions or all(n.domain not in _DEFAULT_DOMAINS for n in _nodes(proto)):
            return proto
        raise SourceError(f"{origin} does not declare the opset of its ops")
    version = declared[0].version
    if version < OLDEST:
        raise SourceError(
            f"{origin} is of opset {version}",
            expected=f"opset {OLDEST} or later",
            advice=f"export it again with opset_version={OPSET}, or upgrade it with "
            "onnx.version_converter",
        )
    if version == OPSET:
        return proto
    if proto.functions:
        proto = _inlined(proto, origin)
    if version > OPSET:
        _check_lowering(proto, version, origin)
    elif version < _REWRITTEN_WHOLE or any(
        _REWRITTEN_AT.get(n.op_type, 0) > version for n in _default_nodes(proto)
    ):
        converted = _converted(proto, version, origin)
        if version < _REWRITTEN_WHOLE:
            _keep_old_resize(converted)
            converted.metadata_props.add(key=UPGRADED, value=f"opset {version} > {OPSET}")
        return converted
    for entry in proto.opset_import:
        if entry.domain in _DEFAULT_DOMAINS:
            entry.version = OPSET
    return proto


def _nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    yield from _nodes_of(proto.graph)


def _nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            inner: Iterable[onnx.GraphProto] = attribute.graphs
            if attribute.HasField("g"):
                inner = [attribute.g]
            for graph_inside in inner:
                yield from _nodes_of(graph_inside)


def _default_nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    return (n for n in _nodes(proto) if n.domain in _DEFAULT_DOMAINS)


def _check_lowering(proto: onnx.ModelProto, version: int, origin: str) -> None:
    """Refuse what opset `OPSET` does not have; every other op means the same in both."""
    import onnx.defs

    newest = onnx.defs.onnx_opset_version()
    problems: dict[str, None] = {}
    for node in _default_nodes(proto):
        try:
            new = onnx.defs.get_schema(node.op_type, min(version, newest), "")
        except onnx.defs.SchemaError:
            problems.setdefault(f"{node.op_type} (no op of opset {version})")
            continue
        if new.since_version <= OPSET:
            continue
        try:
            old = onnx.defs.get_schema(node.op_type, OPSET, "")
        except onnx.defs.SchemaError:
            problems.setdefault(f"{node.op_type} (new in opset {new.since_version})")
            continue
        extra = sorted(a.name for a in node.attribute if a.name not in old.attributes)
        if extra:
            problems.setdefault(f"{node.op_type} with {', '.join(extra)}")
        elif len(node.input) > old.max_input or node.op_type in _CHANGED_AFTER:
            problems.setdefault(f"{node.op_type} as opset {new.since_version} has it")
    if problems:
        raise UnsupportedModelError(
            f"{origin} is of opset {version} and uses what opset {OPSET} does not have: "
            f"{'; '.join(problems)}",
            advice=f"export it with opset_version={OPSET}",
        )


def _converted(proto: onnx.ModelProto, version: int, origin: str) -> onnx.ModelProto:
    import onnx

    # The converter copies all weights, thrice. It does not read the large ones: they stand aside
    # as inputs meanwhile.
    initializers = list(proto.graph.initializer)
    inputs = {v.name for v in proto.graph.input}
    aside = [
        t for t in initializers if t.name not in inputs and (t.ByteSize() > 1024 or t.external_data)
    ]
    names = {t.name for t in aside}
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(_without(proto, names))
    for tensor in aside:
        skeleton.graph.input.append(
            onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        )
    try:
        data = native.convert_version(skeleton.SerializeToString(), OPSET)
    except native.RefusedError as error:
        raise UnsupportedModelError(
            f"{origin} is of opset {version}, and cannot be brought to {OPSET}: "
            f"{str(error).splitlines()[-1]}",
            advice=f"export it again with opset_version={OPSET}",
        ) from error
    converted = onnx.load_from_string(data)
    kept = [v for v in converted.graph.input if v.name not in names]
    del converted.graph.input[:]
    converted.graph.input.extend(kept)
    converted.graph.initializer.extend(aside)
    return converted


def _keep_old_resize(proto: onnx.ModelProto) -> None:
    """Upsample, and Resize before opset 11, sample at ``floor(x / scale)``; the version converter
    leaves the defaults of opset 11, which sample at half pixels."""
    import onnx

    for node in _default_nodes(proto):
        if node.op_type == "Resize":
            given = {a.name for a in node.attribute}
            for name, value in (
                ("coordinate_transformation_mode", "asymmetric"),
                ("nearest_mode", "floor"),
            ):
                if name not in given:
                    node.attribute.append(onnx.helper.make_attribute(name, value))


def _inlined(proto: onnx.ModelProto, origin: str) -> onnx.ModelProto:
    import onnx

    try:
        return onnx.load_from_string(native.inline_functions(proto.SerializeToString()))
    except native.RefusedError as error:
        raise UnsupportedModelError(
            f"the local functions of {origin} cannot be inlined: {str(error).splitlines()[-1]}",
            advice="export it again without functions",
        ) from error


def _without(proto: onnx.ModelProto, names: set[str]) -> onnx.ModelProto:
    """A copy that lacks the initializers of these names, made without copying their data."""
    import onnx

    copied = onnx.ModelProto()
    # Before IR version 4 an initializer had to be an input too; here it is one or the other.
    copied.ir_version = max(proto.ir_version, 8)
    copied.opset_import.extend(proto.opset_import)
    graph = copied.graph
    graph.name = proto.graph.name or "graph"
    graph.node.extend(proto.graph.node)
    graph.input.extend(proto.graph.input)
    graph.output.extend(proto.graph.output)
    graph.value_info.extend(proto.graph.value_info)
    graph.initializer.extend(t for t in proto.graph.initializer if t.name not in names)
    return copied
