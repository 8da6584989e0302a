"""What is proven of an ONNX file before anything else reads it.

Protobuf says only that the bytes are fields. Here each graph, function, node, attribute and tensor
is held against ONNX's own declarations, so that what comes after may rely on it:

1. No more nodes, and no deeper subgraphs, than `deploykit.limits` allow.
2. Every tensor has a known type, dims of its own, and exactly the data for them.
3. Every node of ONNX's domain has attributes of the declared types, the required ones among them,
   and as many inputs and outputs as the op takes.
4. Each value has one maker and each function, input and initializer a separate name; names that
   nodes read exist, and no function calls itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from deploykit.errors import SourceError, UnsupportedModelError
from deploykit.limits import current_limits, elements_of
from deploykit.printable import printable_name
from deploykit.sources.onnx_schema import schema_of

if TYPE_CHECKING:
    import onnx

_DEFAULT_DOMAINS = ("", "ai.onnx")
_NEWEST_KNOWN = 10_000  # a version beyond is a damaged number
_MOST_DIMS = 32

# The field of AttributeProto that holds a value of each type (onnx.AttributeProto.AttributeType).
_FIELD_OF_TYPE = {
    1: "f",
    2: "i",
    3: "s",
    4: "t",
    5: "g",
    6: "floats",
    7: "ints",
    8: "strings",
    9: "tensors",
    10: "graphs",
    11: "sparse_tensor",
    12: "sparse_tensors",
    13: "tp",
    14: "type_protos",
}
_SPARSE = (11, 12)
# Element types by the field that holds them, where it is not raw_data (onnx.TensorProto).
_TYPED_FIELDS = {
    1: "float_data",
    14: "float_data",
    7: "int64_data",
    8: "string_data",
    11: "double_data",
    15: "double_data",
    12: "uint64_data",
    13: "uint64_data",
}
_DATA_FIELDS = (*sorted(set(_TYPED_FIELDS.values())), "int32_data")
_COMPLEX = (14, 15)
_STRING = 8
# Bits of one element, by the number of its type.
_BITS = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 8: 0, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64,
    14: 64, 15: 128, 16: 16, 17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2,
}  # fmt: skip


def check_proto(proto: onnx.ModelProto, path: Path) -> None:
    """See the module's docstring.

    Raises:
        SourceError: the file is damaged, or larger than a limit.
        UnsupportedModelError: sparse constants.
    """
    try:
        _Checker(str(path)).check_model(proto)
    except UnicodeDecodeError as error:
        raise _not_text(str(path)) from error


def _not_text(origin: str) -> SourceError:
    return SourceError(
        f"{origin} is a damaged ONNX file: a name in it is not UTF-8", advice="get the file again"
    )


class _Checker:
    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._nodes = 0
        self._opset = 0

    def _refuse(self, what: str) -> NoReturn:
        raise SourceError(
            f"{self._origin} is a damaged ONNX file: {what}",
            advice="check it with onnx.checker, or export it again",
        )

    def _check_text(self, *texts: str) -> None:
        # protobuf raises, or gives the bytes, according to its version.
        if any(isinstance(text, bytes) for text in texts):
            raise _not_text(self._origin)

    def check_model(self, proto: onnx.ModelProto) -> None:
        self._check_text(
            proto.producer_name, proto.producer_version, proto.domain, proto.doc_string
        )
        for entry in proto.metadata_props:
            self._check_text(entry.key, entry.value)
        self._opset = self._check_opsets(proto.opset_import)
        self._check_graph(proto.graph, frozenset(), 0)
        calls: dict[tuple[str, str, str], set[tuple[str, str, str]]] = {}
        for function in proto.functions:
            key = (function.domain, function.name, function.overload)
            if not function.name or key in calls:
                self._refuse(
                    f"two functions, or none, are called '{printable_name(function.name)}'"
                )
            calls[key] = self._check_function(function)
        for key in calls:
            if _reaches_itself(key, calls):
                self._refuse(f"the function '{printable_name(key[1])}' calls itself")

    def _check_opsets(self, imports: Sequence[onnx.OperatorSetIdProto]) -> int:
        versions: dict[str, int] = {}
        for entry in imports:
            self._check_text(entry.domain)
            domain = "" if entry.domain in _DEFAULT_DOMAINS else entry.domain
            if versions.setdefault(domain, entry.version) != entry.version:
                self._refuse(f"it declares two opsets of '{printable_name(domain)}'")
            if not 0 <= entry.version <= _NEWEST_KNOWN:
                self._refuse(f"it declares the opset {entry.version}")
        return versions.get("", 0)

    def _check_function(self, function: onnx.FunctionProto) -> set[tuple[str, str, str]]:
        self._check_text(function.name, function.domain, function.overload, function.doc_string)
        self._check_text(*function.input, *function.output, *function.attribute)
        where = f"the function '{printable_name(function.name)}'"
        opset, self._opset = self._opset, self._check_opsets(function.opset_import) or self._opset
        made = self._names([*function.input], f"an input of {where}")
        for node in function.node:
            for tensor in tensors_of_node(node):
                if tensor.data_location == tensor.EXTERNAL:
                    self._refuse(f"{where} keeps a tensor in another file")
        self._check_nodes(function.node, made, 0, in_function=True)
        self._opset = opset
        return {(n.domain, n.op_type, n.overload) for n in function.node}

    def _check_graph(self, graph: onnx.GraphProto, outer: frozenset[str], depth: int) -> None:
        limit = current_limits().nesting
        if depth > limit:
            raise SourceError(
                f"{self._origin} has graphs within graphs, more than {limit} deep",
                advice="--max nesting=N allows more",
            )
        self._check_text(graph.name, graph.doc_string)
        for value in (*graph.input, *graph.output, *graph.value_info):
            self._check_type(value)
        inputs = self._names([v.name for v in graph.input], "an input")
        initializers = self._names([t.name for t in graph.initializer], "an initializer")
        self._names(list({v.name for v in graph.output}), "an output")
        for tensor in graph.initializer:
            self._check_tensor(tensor)
        if graph.sparse_initializer and depth:
            raise UnsupportedModelError(f"{self._origin} has sparse weights in a subgraph")
        self._check_nodes(graph.node, inputs | initializers, depth, outer=outer)

    def _names(self, names: Sequence[str], what: str) -> set[str]:
        found = set(names)
        if "" in found:
            self._refuse(f"{what} has no name")
        if len(found) != len(names):
            twice = next(n for i, n in enumerate(names) if n in names[:i])
            self._refuse(f"{what} is there twice: '{printable_name(twice)}'")
        return found

    def _check_nodes(
        self,
        nodes: Sequence[onnx.NodeProto],
        given: set[str],
        depth: int,
        *,
        outer: frozenset[str] = frozenset(),
        in_function: bool = False,
    ) -> None:
        self._nodes += len(nodes)
        limit = current_limits().nodes
        if self._nodes > limit:
            raise SourceError(
                f"{self._origin} has more than {limit:,} nodes",
                advice="--max nodes=N allows more",
            )
        made: set[str] = set()
        for node in nodes:
            self._check_text(node.name, node.op_type, node.domain, node.overload, node.doc_string)
            self._check_text(*node.input, *node.output)
            for name in filter(None, node.output):
                if name in made or name in given:
                    self._refuse(f"two nodes make the value '{printable_name(name)}'")
                made.add(name)
        known = frozenset(made | given | outer)
        for node in nodes:
            where = f"node '{printable_name(node.name or node.op_type)}'"
            if not node.op_type:
                self._refuse(f"{where} has no op")
            missing = next((n for n in node.input if n and n not in known), None)
            if missing is not None:
                self._refuse(f"{where} reads '{printable_name(missing)}', which nothing makes")
            for attribute in node.attribute:
                self._check_attribute(attribute, where, in_function=in_function)
            self._check_schema(node, where)
            for inner in graphs_of_node(node):
                self._check_graph(inner, known, depth + 1)

    def _check_attribute(
        self, attribute: onnx.AttributeProto, where: str, *, in_function: bool
    ) -> None:
        self._check_text(attribute.name, attribute.ref_attr_name, attribute.doc_string)
        name = printable_name(attribute.name)
        field = _FIELD_OF_TYPE.get(attribute.type)
        if attribute.ref_attr_name:
            if not in_function:
                self._refuse(f"{where} refers to an attribute outside of a function")
            return
        if not name or field is None:
            self._refuse(f"{where} has an attribute '{name}' of unknown type {attribute.type}")
        if attribute.type in _SPARSE:
            raise UnsupportedModelError(
                f"{self._origin} has a sparse constant in {where}", advice="export it dense"
            )
        for other in _FIELD_OF_TYPE.values():
            if other != field and _is_set(attribute, other):
                self._refuse(f"the attribute '{name}' of {where} holds a value of another type")
        if field in ("t", "g", "tp") and not attribute.HasField(field):
            self._refuse(f"the attribute '{name}' of {where} holds no value")
        for tensor in (attribute.t,) if field == "t" else attribute.tensors:
            self._check_tensor(tensor)

    def _check_schema(self, node: onnx.NodeProto, where: str) -> None:
        names = [a.name for a in node.attribute]
        if len(set(names)) != len(names):
            self._refuse(f"{where} has an attribute twice")
        if node.domain not in _DEFAULT_DOMAINS or not self._opset:
            return
        schema = schema_of(node.op_type, self._opset)
        if schema is None:  # what it is, is reported with all other unsupported ops
            return
        for attribute in node.attribute:
            declared = schema.types.get(attribute.name)
            if declared is None:
                if attribute.name not in schema.types_of_any_version:
                    self._refuse(
                        f"{where} has an attribute '{printable_name(attribute.name)}', which "
                        f"{node.op_type} of opset {self._opset} does not have"
                    )
            elif declared != attribute.type:
                self._refuse(
                    f"the attribute '{attribute.name}' of {where} is of type {attribute.type}, and "
                    f"{node.op_type} takes type {declared}"
                )
        lacking = schema.required.difference(names)
        if lacking:
            self._refuse(f"{where} lacks the attribute '{min(lacking)}' of {node.op_type}")
        for kind, count, (low, high) in (
            ("inputs", len(node.input), schema.inputs),
            ("outputs", len(node.output), schema.outputs),
        ):
            if not low <= count <= high:
                self._refuse(f"{where} has {count} {kind}, and {node.op_type} has {low} to {high}")
        needed = [i for i in schema.needed_inputs if i >= len(node.input) or not node.input[i]]
        if needed:
            self._refuse(f"{where} lacks its input {needed[0]}")

    def _check_type(self, value: onnx.ValueInfoProto) -> None:
        self._check_text(value.name, value.doc_string)
        if not value.type.HasField("tensor_type"):
            return
        kind = value.type.tensor_type
        self._check_text(*(d.dim_param for d in kind.shape.dim))
        name = printable_name(value.name)
        if kind.elem_type not in _BITS and kind.elem_type != 0:
            self._refuse(f"the value '{name}' has an unknown element type {kind.elem_type}")
        if len(kind.shape.dim) > _MOST_DIMS:
            self._refuse(f"the value '{name}' has {len(kind.shape.dim)} dimensions")
        sizes = [d.dim_value for d in kind.shape.dim if d.dim_value > 0]
        if elements_of(sizes) > current_limits().file_bytes:
            self._refuse(f"the value '{name}' would have {elements_of(sizes):,} elements")

    def _check_tensor(self, tensor: onnx.TensorProto) -> None:
        self._check_text(tensor.name, tensor.doc_string)
        self._check_text(*(t for e in tensor.external_data for t in (e.key, e.value)))
        where = f"the tensor '{printable_name(tensor.name)}'"
        bits = _BITS.get(tensor.data_type)
        if bits is None:
            self._refuse(f"{where} has an unknown element type {tensor.data_type}")
        if len(tensor.dims) > _MOST_DIMS or any(d < 0 for d in tensor.dims):
            self._refuse(f"{where} has the shape {list(tensor.dims)[:_MOST_DIMS]}")
        if tensor.HasField("segment"):
            self._refuse(f"{where} is stored in segments")
        elements = elements_of(tensor.dims)
        size = (elements * bits + 7) // 8
        filled = [f for f in _DATA_FIELDS if len(getattr(tensor, f))]
        if tensor.data_location == tensor.EXTERNAL:
            if filled or tensor.HasField("raw_data"):
                self._refuse(f"{where} is here and in another file")
            self._check_external(tensor, size, where)
            return
        field = _TYPED_FIELDS.get(tensor.data_type, "int32_data")
        if tensor.HasField("raw_data"):
            found, expected = len(tensor.raw_data), size
            if filled or tensor.data_type == _STRING:
                self._refuse(f"{where} has its data twice")
        else:
            found, expected = len(getattr(tensor, field)), elements
            expected *= 2 if tensor.data_type in _COMPLEX else 1
            if bits and bits < 8:
                expected = size
            if [f for f in filled if f != field]:
                self._refuse(f"{where} has data of another type")
        if found != expected:
            unit = "bytes" if tensor.HasField("raw_data") else "elements"
            self._refuse(
                f"{where} of shape {list(tensor.dims)} has {found:,} {unit}, not {expected:,}"
            )

    def _check_external(self, tensor: onnx.TensorProto, size: int, where: str) -> None:
        entries = {e.key: e.value for e in tensor.external_data}
        for key in ("offset", "length"):
            text = entries.get(key, "0")
            if not (text.isascii() and text.isdigit() and len(text) < 20):
                self._refuse(f"{where} has the {key} '{printable_name(text)}' in another file")
        if "length" in entries and int(entries["length"]) != size:
            self._refuse(
                f"{where} of shape {list(tensor.dims)} has {int(entries['length']):,} bytes, not "
                f"{size:,}"
            )


def _is_set(attribute: onnx.AttributeProto, field: str) -> bool:
    try:
        # Exporters write a zero of every scalar field: only what holds something counts.
        return attribute.HasField(field) and bool(_content(attribute, field))
    except ValueError:  # a repeated field
        return len(getattr(attribute, field)) > 0


def _content(attribute: onnx.AttributeProto, field: str) -> object:
    value = getattr(attribute, field)
    return value.ByteSize() if hasattr(value, "ByteSize") else value


def graphs_of_node(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The subgraphs of a node's attributes."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def tensors_of_node(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    """The tensors of a node's attributes, those of its subgraphs included."""
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
    for graph in graphs_of_node(node):
        yield from graph.initializer
        for inner in graph.node:
            yield from tensors_of_node(inner)


def _reaches_itself(
    start: tuple[str, str, str],
    calls: dict[tuple[str, str, str], set[tuple[str, str, str]]],
) -> bool:
    waiting, seen = list(calls[start]), set[tuple[str, str, str]]()
    while waiting:
        key = waiting.pop()
        if key == start:
            return True
        if key in calls and key not in seen:
            seen.add(key)
            waiting.extend(calls[key])
    return False
