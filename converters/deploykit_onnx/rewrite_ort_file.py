"""What is written anew in front of an .ort flatbuffer that ONNX Runtime wrote.

    root table | kernel type strings | model: graph, weights | version

A flatbuffer is built from its end to its beginning; offsets within it point forward, and alignment
is counted from its end. So tables can be put in front of what is there already, and point into it,
and nothing else moves. Two things are done that way:

1.  `sort_kernel_types`. ONNX Runtime keeps the kernel type strings of each operator (which input or
    output decides the type that a kernel is chosen by) in a hash map whose order depends on the
    address of a variable, and so on the process. They are what it writes last, and the only part
    of the file that differs from run to run. They are written again, sorted by name, in the place
    of the old ones.
2.  `expose_values`. A graph whose every node gives an output of the graph, to look at values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deploykit.errors import UserError

IDENTIFIER = b"ORTM"

#: Alignment of the whole: the largest scalar of the schema has 8 bytes.
_ALIGNMENT = 8
#: Fields of the tables, by their order in the schema; those that hold a number, with its width.
_VERSION, _MODEL, _RESOLVER = 0, 1, 3
_SESSION_FIELDS = 4
_GRAPH = 7
_MODEL_FIELDS, _MODEL_NUMBERS = 10, {0: "Int64", 5: "Int64"}
_OUTPUTS = 6
_GRAPH_FIELDS, _GRAPH_NUMBERS = 9, {3: "Uint32"}


@dataclass(frozen=True, order=True)
class KernelTypes:
    """One type string of an operator.

    Attributes:
        name: E.g. ``T1``.
        args: (0 for an input or 1 for an output, its index) of each that has the type; in order.
    """

    name: bytes
    args: tuple[tuple[int, int], ...]


def sort_kernel_types(data: bytes) -> bytes:
    """The same .ort file with its operators' kernel type strings sorted.

    Raises:
        UserError: the parts of the file lie otherwise than described above.
    """
    session = read_session(data)
    operators = read_kernel_types(session)
    model = session.Model()._tab
    # A table's description (vtable) lies in front of it, or further back if it is shared.
    rest = min(model.Pos, model.Pos - model.Get(_signed(), model.Pos))
    version, resolver = (_position(session._tab, field) for field in (_VERSION, _RESOLVER))
    if not session._tab.Pos < resolver < rest < version:
        raise UserError(
            "this version of onnxruntime orders the parts of an .ort file otherwise",
            expected="root, kernel types, model, version",
            advice="take onnxruntime 1.32, or leave the .ort file out",
        )
    builder = _builder_in_front_of(data[rest:])
    replaced = {_RESOLVER: _write_kernel_types(builder, operators)}
    return _finish(builder, session._tab, len(data), replaced)


def expose_values(data: bytes) -> bytes:
    """The same .ort file with every value that a node of its graph makes as an output.

    The outputs that there were come first. The graph is not optimized again, so that its fusions
    stay as they are.
    """
    session = read_session(data)
    model = session.Model()
    graph = model.Graph()
    names = [graph.Outputs(i) for i in range(graph.OutputsLength())]
    for index in range(graph.NodesLength()):
        node = graph.Nodes(index)
        names += [node.Outputs(i) for i in range(node.OutputsLength())]
    builder, end = _builder_in_front_of(data), len(data)
    texts = [builder.CreateString(name) for name in dict.fromkeys(names) if name]
    outputs = {_OUTPUTS: _write_vector(builder, texts)}
    graphs = {_GRAPH: _copy(builder, graph._tab, end, _GRAPH_FIELDS, _GRAPH_NUMBERS, outputs)}
    models = {_MODEL: _copy(builder, model._tab, end, _MODEL_FIELDS, _MODEL_NUMBERS, graphs)}
    return _finish(builder, session._tab, end, models)


def _builder_in_front_of(rest: bytes) -> Any:
    import flatbuffers

    builder = flatbuffers.Builder(0)
    builder.Bytes, builder.head = bytearray(rest), 0
    builder.minalign = _ALIGNMENT
    return builder


def _finish(builder: Any, session: Any, end: int, replaced: Mapping[int, int]) -> bytes:
    root = _copy(builder, session, end, _SESSION_FIELDS, {}, replaced)
    builder.Finish(root, file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _copy(
    builder: Any,
    table: Any,
    end: int,
    fields: int,
    numbers: Mapping[int, str],
    replaced: Mapping[int, int],
) -> int:
    """A table like another one, which points to what that points to but for some fields.

    Args:
        builder: Stands in front of the other one.
        table: The other one.
        end: Length of the buffer that it is in: a builder counts offsets from there.
        fields: Number of fields that the schema has.
        numbers: Field → type, of those that hold a number.
        replaced: Field → offset of what it is to point to.
    """
    from flatbuffers import number_types

    builder.StartObject(fields)
    for field in range(fields):
        there = table.Offset(_slot(field))
        if field in replaced:
            builder.PrependUOffsetTRelativeSlot(field, replaced[field], 0)
        elif there and field in numbers:
            flags = getattr(number_types, f"{numbers[field]}Flags")
            value = table.Get(flags, table.Pos + there)
            getattr(builder, f"Prepend{numbers[field]}Slot")(field, value, 0)
        elif there:
            builder.PrependUOffsetTRelativeSlot(field, end - _position(table, field), 0)
    return int(builder.EndObject())


def _slot(field: int) -> int:
    return 4 + 2 * field


def _position(table: Any, field: int) -> int:
    """Where what a field points to begins."""
    return int(table.Indirect(table.Pos + table.Offset(_slot(field))))


def _signed() -> Any:
    from flatbuffers import number_types

    return number_types.SOffsetTFlags


def read_session(data: bytes) -> Any:
    """The root table, by ONNX Runtime's own schema."""
    import onnxruntime.tools.ort_format_model  # noqa: F401 - it makes the schema importable
    from ort_flatbuffers_py.fbs.InferenceSession import InferenceSession

    return InferenceSession.GetRootAs(data, 0)


def read_kernel_types(session: Any) -> dict[bytes, tuple[KernelTypes, ...]]:
    """Operator, e.g. ``:Conv:11`` → its type strings; sorted both."""
    resolver = session.KernelTypeStrResolver()
    found = {}
    for index in range(resolver.OpKernelTypeStrArgsLength()):
        entry = resolver.OpKernelTypeStrArgs(index)
        strings = [entry.KernelTypeStrArgs(i) for i in range(entry.KernelTypeStrArgsLength())]
        found[entry.OpId()] = tuple(sorted(map(_read_string, strings)))
    return dict(sorted(found.items()))


def _read_string(string: Any) -> KernelTypes:
    args = [string.Args(i) for i in range(string.ArgsLength())]
    return KernelTypes(string.KernelTypeStr(), tuple((a.ArgType(), a.Index()) for a in args))


def _write_kernel_types(builder: Any, operators: dict[bytes, tuple[KernelTypes, ...]]) -> int:
    entries = []
    for name, strings in operators.items():
        written = [_write_string(builder, string) for string in strings]
        entries.append(_write_pair(builder, name, written))
    vector = _write_vector(builder, entries)
    builder.StartObject(1)
    builder.PrependUOffsetTRelativeSlot(0, vector, 0)
    return int(builder.EndObject())


def _write_string(builder: Any, string: KernelTypes) -> int:
    args = []
    for kind, index in string.args:
        builder.StartObject(2)
        builder.PrependUint32Slot(1, index, 0)
        builder.PrependInt8Slot(0, kind, 0)
        args.append(builder.EndObject())
    return _write_pair(builder, string.name, args)


def _write_pair(builder: Any, name: bytes, tables: Sequence[int]) -> int:
    """A table of a name and a vector of tables."""
    vector, text = _write_vector(builder, tables), builder.CreateString(name)
    builder.StartObject(2)
    builder.PrependUOffsetTRelativeSlot(0, text, 0)
    builder.PrependUOffsetTRelativeSlot(1, vector, 0)
    return int(builder.EndObject())


def _write_vector(builder: Any, tables: Sequence[int]) -> int:
    builder.StartVector(4, len(tables), 4)
    for table in reversed(tables):
        builder.PrependUOffsetTRelative(table)
    return int(builder.EndVector())
