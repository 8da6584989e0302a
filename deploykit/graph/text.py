"""A graph, and the notes of its passes, as text for people.

conv1 : float32[1, 16, 112, 112] = Conv(x, conv1.weight[16, 3, 3, 3], conv1.bias[16];
    group=1, ...)  # conv_stem, ghostnet.py:865
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from deploykit.graph.provenance import module_path, source_line
from deploykit.graph.reading import constant_array
from deploykit.model import Model, PassNote
from deploykit.printable import printable_line, printable_name

if TYPE_CHECKING:
    import onnx_ir as ir

#: A constant of at most this many elements is printed with them.
SHOWN_ELEMENTS = 8
#: How many nodes a group of notes names.
SHOWN_NODES = 4


def format_graph(model: Model) -> str:
    """One stage, readable: a line a node, then the count of each op, then the functions.

    A node's line: outputs with dtype and shape, op, inputs, attributes, and behind ``#`` the
    module and the line of the source, where known. Small constants are printed as numbers, large
    ones with their shape.
    """
    graph = model.graph.graph
    imports = sorted(model.graph.opset_imports.items())
    versions = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in imports)
    lines = [f"{model.name}, {model.stage.value} stage, operator sets: {versions}"]
    lines += [f"input  {_typed(value)}" for value in graph.inputs]
    lines += [_node_line(node) for node in graph]
    lines += [f"output {_typed(value)}" for value in graph.outputs]
    lines += ["", *_summary(model.graph)]
    return "\n".join(lines)


def _typed(value: ir.Value) -> str:
    dtype = value.dtype.numpy().name if value.dtype is not None else "?"
    shape = "?" if value.shape is None else ", ".join(str(d) for d in value.shape.dims)
    return f"{printable_name(value.name or '?')}: {dtype}[{printable_name(shape)}]"


def _operand(value: ir.Value | None) -> str:
    if value is None:
        return "-"
    array = constant_array(value)
    if array is None:
        return printable_name(value.name or "?")
    if array.size <= SHOWN_ELEMENTS:
        shown = [f"{n:.7g}" if array.dtype.kind == "f" else str(n) for n in array.reshape(-1)]
        return f"[{', '.join(shown)}]" if array.ndim else shown[0]
    return f"{printable_name(value.name or '?')}[{', '.join(str(d) for d in array.shape)}]"


def _attribute(attribute: ir.Attr) -> str:
    import onnx_ir as ir

    value = attribute.value
    if attribute.type == ir.AttributeType.FLOAT:
        value = f"{attribute.as_float():.7g}"
    elif attribute.type in (ir.AttributeType.INTS, ir.AttributeType.FLOATS):
        value = list(value)
    elif attribute.type in (ir.AttributeType.TENSOR, ir.AttributeType.GRAPH):
        value = f"<{attribute.type.name.lower()}>"
    return f"{attribute.name}={printable_name(str(value))}"


def _node_line(node: ir.Node) -> str:
    op = printable_name(f"{node.domain}::{node.op_type}" if node.domain else node.op_type)
    operands = ", ".join(_operand(value) for value in node.inputs)
    attributes = ", ".join(_attribute(node.attributes[name]) for name in sorted(node.attributes))
    call = f"{op}({operands}; {attributes})" if attributes else f"{op}({operands})"
    origin = ", ".join(part for part in (module_path(node), source_line(node)) if part)
    line = f"{', '.join(_typed(o) for o in node.outputs)} = {call}"
    return f"{line}  # {printable_name(origin)}" if origin else line


def _summary(model: ir.Model) -> list[str]:
    counts = Counter(
        printable_name(f"{node.domain}::{node.op_type}" if node.domain else node.op_type)
        for node in model.graph
    )
    width = max((len(op) for op in counts), default=0)
    elements = sum(v.const_value.size for v in model.graph.initializers.values() if v.const_value)
    lines = [f"{len(model.graph)} nodes, {elements} constant elements"]
    lines += [
        f"  {op:<{width}}  {count}"
        for op, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
    for domain, name, _ in sorted(model.functions):
        function = model.functions[(domain, name, "")]
        inputs = ", ".join(v.name or "" for v in function.inputs)
        outputs = ", ".join(v.name or "" for v in function.outputs)
        body = ", ".join(node.op_type for node in function)
        lines.append(printable_line(f"function {domain}::{name}({inputs}) -> ({outputs}): {body}"))
    return lines


def format_notes(notes: Iterable[PassNote]) -> str:
    """What each pass did and did not, and why.

    Passes come in the order in which they first spoke; within a pass what it did comes before what
    it did not, the most frequent first. Notes that say the same are one line, with their number
    and the first few nodes.
    """
    passes: dict[str, dict[tuple[bool, str], list[str]]] = {}
    for note in notes:
        groups = passes.setdefault(note.pass_name, {})
        groups.setdefault((note.matched, note.reason), []).append(note.node)
    lines = []
    for name, groups in passes.items():
        lines.append(name)
        ordered = sorted(groups.items(), key=lambda g: (not g[0][0], -len(g[1]), g[0][1]))
        for (matched, reason), nodes in ordered:
            shown = ", ".join(map(printable_name, nodes[:SHOWN_NODES]))
            shown += ", ..." if len(nodes) > SHOWN_NODES else ""
            done, why = "done" if matched else "not ", printable_line(reason)
            lines.append(f"  {done} {len(nodes):4} x {why}  ({shown})")
    return "\n".join(lines)
