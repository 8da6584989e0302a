"""A note on a value: its channels are held in another order than the source's.

A pass may leave a value's channels (axis 1) in an order that suits the target, because the layers
around it take them so. The value keeps its name, since it is the same layer's result, and carries
its order as metadata that survives saving: position i holds channel ``order[i]`` of the source's
value. Whoever compares the value with the source's must put the channels back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

_KEY = "deploykit.channel_order"


def channel_order(value: ir.Value) -> tuple[int, ...] | None:
    """Which channel of the source's value each position holds; None where nothing is moved."""
    text = value.metadata_props.get(_KEY, "")
    return tuple(int(word) for word in text.split(",")) if text else None


def set_channel_order(value: ir.Value, order: tuple[int, ...]) -> None:
    """Note the order of a value; that of the source itself needs no note."""
    if order == tuple(range(len(order))):
        value.metadata_props.pop(_KEY, None)
    else:
        value.metadata_props[_KEY] = ",".join(map(str, order))


def channel_orders(model: ir.Model) -> dict[str, tuple[int, ...]]:
    """Value name → order, for every value of a graph that is held in another order."""
    values = [*model.graph.inputs, *(v for node in model.graph for v in node.outputs)]
    found = {v.name or "": channel_order(v) for v in values}
    return {name: order for name, order in found.items() if order is not None}
