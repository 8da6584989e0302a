"""In which order to hold the channels of every value, so that moving them costs least.

Channels come from *sources*: values that something else than a movement makes, or that something
else than a movement reads. What movements make between sources need not exist at all.

1.  Values that are tied (`deploykit.passes.channel_roles`) form a class with one order. A class
    has *cells*, runs of positions whose channels may change places among each other: one cell if
    all around it absorbs any order, one a group beside a grouped convolution, one a channel if it
    is pinned.
2.  A *demand* is a source that movements make: it must be gathered from slices of other sources.
    It costs one slice for every run of positions that are neighbours on both sides.
3.  A class that convolutions make sorts its channels, within its cells, by the cells of the
    demands that they go to: so each demand finds its own together.
4.  A class that a demand makes takes the order of the slices as they come, within its cells.
5.  A demand for which its sources are cut into too many slices stays as it is: its movements pin
    what they read and make. A transpose of all channels is cheaper then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deploykit.passes.channel_roles import Channel, ChannelRole, count_channels, find_role

if TYPE_CHECKING:
    import onnx_ir as ir

Order = tuple[int, ...]
_NOWHERE = 1 << 30

#: So many slices are always cheaper than a transpose; so many of two channels or more, on average,
#: cost no more than one (a shuffle in 3 groups takes 9: docs/latency.md).
_FEW = 4
_FEW_WIDE = 9


@dataclass(frozen=True)
class Run:
    """Neighbouring positions of a source, as they are held: ``start`` up to ``stop``."""

    source: ir.Value
    start: int
    stop: int


@dataclass(frozen=True)
class ChannelPlan:
    """What was decided.

    Attributes:
        orders: Value → which of its channels each position holds; for every value with channels
            that something else than a movement reads or makes.
        slices: Demand → the slices of which it is put together, in order.
        roles: Node → its role; a movement that stays pins.
        refused: Demand → number of slices that it would take.
    """

    orders: Mapping[ir.Value, Order]
    slices: Mapping[ir.Value, tuple[Run, ...]]
    roles: Mapping[ir.Node, ChannelRole]
    refused: Mapping[ir.Value, int]


def plan_channel_orders(graph: ir.Graph, max_cuts: int) -> ChannelPlan:
    """Decide orders and slices for a fused graph with static shapes.

    Args:
        graph: The graph; it is not changed.
        max_cuts: The most slices, on average, of each source that a demand is put together from
            (four in all, or nine of some width, are never too many).
    """
    roles = {node: find_role(node) for node in graph}
    refused: dict[ir.Value, int] = {}
    while True:
        plan = _Planner(graph, roles).plan(refused)
        dear = {
            demand: len(runs)
            for demand, runs in plan.slices.items()
            if len(runs) > max(_few(demand), max_cuts * len({run.source for run in runs}))
            or (demand.is_graph_output() and len(runs) == 1)  # it needs a separate name
        }
        if not dear:
            return plan
        refused.update(dear)
        for demand in dear:
            _pin_movements(demand, roles)


def _few(demand: ir.Value) -> int:
    return _FEW_WIDE if count_channels(demand) >= 2 * _FEW_WIDE else _FEW


def _pin_movements(demand: ir.Value, roles: dict[ir.Node, ChannelRole]) -> None:
    stack = [demand]
    while stack:
        node = stack.pop().producer()
        if node is not None and roles[node].moved:
            roles[node] = ChannelRole()
            stack.extend(v for v in node.inputs if v is not None)


@dataclass
class _Planner:
    graph: ir.Graph
    roles: Mapping[ir.Node, ChannelRole]
    parents: dict[ir.Value, ir.Value] = field(default_factory=dict)
    cells: dict[ir.Value, list[int]] = field(default_factory=dict)
    demands: dict[ir.Value, list[Channel]] = field(default_factory=dict)
    orders: dict[ir.Value, Order] = field(default_factory=dict)

    def plan(self, refused: Mapping[ir.Value, int]) -> ChannelPlan:
        self._find_demands()
        self._tie_values()
        self._set_cells()
        signatures = self._find_signatures()
        makers: dict[ir.Value, list[ir.Value]] = {}
        for demand in self.demands:
            makers.setdefault(self.root(demand), []).append(demand)
        best: dict[ir.Value, Order] = {}
        cost = _NOWHERE
        for by_signature in (False, True):
            self.orders = {}
            for root in self.cells:
                self._order_of(root, makers, signatures, by_signature, frozenset())
            total = sum(len(self._runs_of(demand)) for demand in self.demands)
            if total < cost:
                best, cost = self.orders, total
        self.orders = best
        return ChannelPlan(
            orders={v: self.orders[self.root(v)] for v in self.parents},
            slices={demand: self._runs_of(demand) for demand in self.demands},
            roles=self.roles,
            refused=dict(refused),
        )

    # -- steps

    def _values(self) -> list[ir.Value]:
        made = (v for node in self.graph for v in node.outputs)
        return [v for v in (*self.graph.inputs, *made) if count_channels(v)]

    def _is_moved(self, value: ir.Value) -> bool:
        producer = value.producer()
        return producer is not None and bool(self.roles[producer].moved)

    def _is_source(self, value: ir.Value) -> bool:
        return (
            not self._is_moved(value)
            or value.is_graph_output()
            or any(not self.roles[use.node].moved for use in value.uses())
        )

    def _find_demands(self) -> None:
        # What each channel of a moved value is, in channels of sources; in the graph's order.
        traced: dict[ir.Value, list[Channel]] = {}
        for value in self._values():
            if not self._is_moved(value):
                continue
            producer = value.producer()
            assert producer is not None
            index = list(producer.outputs).index(value)
            traced[value] = [
                (v, i) if v not in traced or self._is_source(v) else traced[v][i]
                for v, i in self.roles[producer].moved[index]
            ]
            if self._is_source(value):
                self.demands[value] = traced[value]

    def root(self, value: ir.Value) -> ir.Value:
        while self.parents[value] is not value:
            value = self.parents[value]
        return value

    def _tie_values(self) -> None:
        self.parents = {v: v for v in self._values() if self._is_source(v)}
        for node in self.graph:
            for value in self.roles[node].tied[1:]:
                one, other = self.root(self.roles[node].tied[0]), self.root(value)
                if one is not other:
                    self.parents[other] = one

    def _set_cells(self) -> None:
        edges: dict[ir.Value, set[int]] = {}
        pinned: set[ir.Value] = set()
        for value in self.parents:
            edges.setdefault(self.root(value), set())
            if value.is_graph_output() or value.producer() is None:
                pinned.add(self.root(value))
        for node, role in self.roles.items():
            if role.moved:
                continue
            for one in (*node.inputs, *node.outputs):
                if one is None or one not in self.parents or one in role.tied:
                    continue
                if one in role.blocks:
                    step = role.blocks[one]
                    edges[self.root(one)].update(range(0, count_channels(one), step))
                else:
                    pinned.add(self.root(one))
        for root, starts in edges.items():
            channels = count_channels(root)
            wanted = set(range(channels)) if root in pinned else starts | {0}
            cell, numbers = -1, []
            for index in range(channels):
                cell += index in wanted
                numbers.append(cell)
            self.cells[root] = numbers

    def _find_signatures(self) -> dict[ir.Value, list[tuple[int, ...]]]:
        """Root → for each channel, the cell of every demand that it goes to."""
        goes: dict[ir.Value, list[dict[int, int]]] = {
            root: [{} for _ in numbers] for root, numbers in self.cells.items()
        }
        for rank, (demand, channels) in enumerate(self.demands.items()):
            cells = self.cells[self.root(demand)]
            for position, (source, channel) in enumerate(channels):
                goes[self.root(source)][channel].setdefault(rank, cells[position])
        return {
            root: [
                tuple(found.get(rank, _NOWHERE) for rank in sorted({k for f in all_ for k in f}))
                for found in all_
            ]
            for root, all_ in goes.items()
        }

    def _order_of(
        self,
        root: ir.Value,
        makers: Mapping[ir.Value, Sequence[ir.Value]],
        signatures: Mapping[ir.Value, Sequence[tuple[int, ...]]],
        by_signature: bool,
        open_roots: frozenset[ir.Value],
    ) -> Order:
        if root in self.orders:
            return self.orders[root]
        cells, signature = self.cells[root], signatures[root]
        rule = {i: (cells[i], signature[i], 0, i) for i in range(len(cells))}
        for demand in makers.get(root, ())[:1]:
            sources = list(dict.fromkeys(self.root(v) for v, _ in self.demands[demand]))
            if root in sources or open_roots & set(sources):
                break  # it is made from itself: no order of the slices to follow
            places = {
                s: _inverse(
                    self._order_of(s, makers, signatures, by_signature, open_roots | {root})
                )
                for s in sources
            }
            rank = {v: n for n, v in enumerate(dict.fromkeys(v for v, _ in self.demands[demand]))}
            for i, (v, channel) in enumerate(self.demands[demand]):
                lead = signature[i] if by_signature else ()
                rule[i] = (cells[i], lead, rank[v], places[self.root(v)][channel])
        self.orders[root] = tuple(sorted(rule, key=rule.__getitem__))
        return self.orders[root]

    def _runs_of(self, demand: ir.Value) -> tuple[Run, ...]:
        runs: list[Run] = []
        places: dict[ir.Value, Order] = {}
        for channel in self.orders[self.root(demand)]:
            source, index = self.demands[demand][channel]
            if source not in places:
                places[source] = _inverse(self.orders[self.root(source)])
            place = places[source][index]
            if runs and runs[-1].source is source and runs[-1].stop == place:
                runs[-1] = Run(source, runs[-1].start, place + 1)
            else:
                runs.append(Run(source, place, place + 1))
        return tuple(runs)


def _inverse(order: Order) -> Order:
    places = [0] * len(order)
    for position, channel in enumerate(order):
        places[channel] = position
    return tuple(places)
