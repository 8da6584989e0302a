"""Make a captured program free of in-place ops, where that takes no more than renaming them.

``torch.export`` records ``relu_`` as it was called. An ONNX graph has no mutation, so the exporter
first retraces the whole program, which costs as much CPU as capturing it did. In networks for
images nearly every in-place op is harmless: the tensor that it overwrites is never read again.
Then ``relu_`` is ``relu``, and the retracing can be left out.

A tensor's *storage class* holds the nodes that are, or may be, views of one memory. An in-place op
is harmless if no node of the class that was computed before it is read after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

# Overloads that give a view of their first argument, or may.
_VIEWS = frozenset(
    [
        "alias",
        "view",
        "reshape",
        "flatten",
        "permute",
        "transpose",
        "t",
        "squeeze",
        "unsqueeze",
        "expand",
        "slice",
        "select",
        "narrow",
        "chunk",
        "split",
        "split_with_sizes",
        "unbind",
        "unflatten",
        "contiguous",
        "detach",
        "to",
        "type_as",
        "dropout",
        "identity",
        "expand_as",
        "view_as",
        "movedim",
        "swapaxes",
        "as_strided",
        "diagonal",
        "unfold",
        "pixel_shuffle",
        "pixel_unshuffle",
        "lift_fresh_copy",
        "feature_dropout",
        "_to_copy",
    ]
)


def is_in_place(node: Node) -> bool:
    """Whether a node overwrites its first argument and returns it."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def functional_overload(node: Node) -> Any | None:
    """``aten.relu.default`` of ``aten.relu_.default``; None if there is none like it."""
    import torch

    target: Any = node.target
    namespace, _, name = target._schema.name.partition("::")
    if namespace != "aten" or not name.endswith("_") or name.endswith("__"):
        return None
    packet = getattr(torch.ops.aten, name[:-1], None)
    overload = getattr(packet, target._overloadname or "default", None) if packet else None
    if overload is None or overload._schema.is_mutable:
        return None
    mine = [(a.name, str(a.type)) for a in overload._schema.arguments]
    its = [(a.name, str(a.type)) for a in target._schema.arguments]
    return overload if mine == its else None


def make_functional(program: ExportedProgram) -> bool:
    """Replace in-place ops by functional ones, in place, if every one of them is harmless.

    Returns:
        Whether the program is free of in-place ops now; if not, it is as it was.
    """
    nodes = list(program.graph.nodes)
    position = {node: i for i, node in enumerate(nodes)}
    storage: dict[Node, Node] = {}
    members: dict[Node, list[Node]] = {}
    replacements: list[tuple[Node, Any]] = []
    for node in nodes:
        if node.op != "call_function":
            storage[node] = node
            members[node] = [node]
            continue
        root = _storage_of(node, storage)
        if is_in_place(node):
            overload = functional_overload(node)
            if overload is None or root is None or root.op != "call_function":
                return False
            here = position[node]
            if any(position[u] > here for m in members[root] for u in m.users):
                return False
            replacements.append((node, overload))
        storage[node] = root or node
        members.setdefault(storage[node], []).append(node)
    for node, overload in replacements:
        node.target = overload
    if replacements:
        program.graph_module.recompile()
    return True


def _storage_of(node: Node, storage: dict[Node, Node]) -> Node | None:
    """The storage class that a node's result belongs to; None if it has memory of its own."""
    import operator

    first: Any = node.args[0] if node.args else None
    inputs = first if isinstance(first, (list, tuple)) else [first]
    sources = [storage[a] for a in inputs if a in storage]
    if not sources:
        return None
    if is_in_place(node) or node.target is operator.getitem:
        return sources[0]
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return sources[0]
    returns_view = any(r.alias_info is not None for r in schema.returns)
    name = schema.name.partition("::")[2]
    return sources[0] if returns_view or name in _VIEWS else None
